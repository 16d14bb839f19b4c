import { once } from "node:events";
import { mkdirSync, openSync, readdirSync, renameSync, statSync, writeSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { Failure } from "@holdfast/shared/domain/failure";
import { createJsonLogger, type Logger } from "@holdfast/shared/ports/logger";
import { type FunctionEntry, functionTable } from "../function-table.ts";
import { readFileIfAny, replaceFile } from "./durable/json-file.ts";
import { lockState } from "./durable/state-lock.ts";
import { openDynamoDb } from "./dynamodb.ts";
import { type EventBridge, openEventBridge } from "./events/event-bus.ts";
import { createInvokeRoute } from "./functions/invoke-route.ts";
import {
  createFunctions,
  FunctionError,
  type Functions,
  type Handler,
} from "./functions/runtime.ts";
import { createHttpApi } from "./http-api.ts";
import { type JsonObject, throughJson } from "./json.ts";
import { startMover } from "./mover-process.ts";
import { executionArn, nameInArn, stateMachineArn } from "./names.ts";
import { environmentOf, openSecret, provision } from "./provision.ts";
import { openScheduler } from "./scheduler/scheduler.ts";
import { createHttpServer } from "./server.ts";
import { openSqs, type Sqs } from "./sqs/sqs.ts";
import { openSsm } from "./ssm/ssm.ts";
import type { Execution } from "./step-functions/executions.ts";
import { StateError, Suspended } from "./step-functions/state-error.ts";
import { openStepFunctions, type StepFunctions } from "./step-functions/step-functions.ts";
import type { TaskServices } from "./step-functions/tasks.ts";

/**
 * The control plane on one machine: DynamoDB, SQS, Step Functions, SSM, Scheduler, EventBridge and the HTTP API on
 * one loopback port, the functions in this process, the mover as a child. What it acknowledged is on the disk; after
 * any end, kill -9 included, the next start on the same state folder goes on where this one was.
 */
export type LocalStack = {
  /** For AWS_ENDPOINT_URL. Its path is a secret: who knows it can do everything, reading secrets included. */
  readonly endpoint: string;
  /** Base of the HTTP API; paths start with /v1/. */
  readonly api: string;
  /** File with the API's bearer token. */
  readonly tokenFile: string;
  readonly state: string;
  /** Drains: the mover first, then running functions; executions go on at the next start. */
  close(): Promise<void>;
};

export type LocalStackOptions = {
  readonly stateFolder: string;
  /** 0: the port of the last start on this state if it is free, else any. */
  readonly port?: number;
  readonly mover?: boolean;
  /** Functions other than the product's, for tests. */
  readonly functions?: readonly FunctionEntry[];
  readonly handlers?: Readonly<Record<string, Handler>>;
  /** Folder of the ASL files; the product's when absent, none when null. */
  readonly stateMachinesFolder?: string | null;
  /** The mover's main module; the product's when absent. */
  readonly moverEntry?: string;
  /** More variables for the mover. */
  readonly moverEnvironment?: Readonly<Record<string, string>>;
};

const repositoryFolder = resolve(import.meta.dirname, "../..");
/** Longer than any stage's drain; then the mover is killed, and its work resumes at the next start. */
const moverDrainMs = 60_000;
const functionsDrainMs = 20_000;
const logSizeBytesMax = 32 * 1024 * 1024;

/** Throws `busy` when a stack runs on this state already, `input.invalid` when the port is taken. */
export async function startLocalStack(options: LocalStackOptions): Promise<LocalStack> {
  const state = resolve(options.stateFolder);
  mkdirSync(join(state, "log"), { recursive: true, mode: 0o700 });
  const unlock = lockState(state);
  rotateLogs(join(state, "log"));
  const undo: (() => Promise<void> | void)[] = [unlock];
  const unwind = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return await start(options, state, undo, unwind);
  } catch (error) {
    await unwind();
    throw error;
  }
}

type Undo = (() => Promise<void> | void)[];

async function start(
  options: LocalStackOptions,
  state: string,
  undo: Undo,
  unwind: () => Promise<void>,
): Promise<LocalStack> {
  const late: { server?: Server; restoreEnvironment?: () => void } = {};
  const services = await openServices(options, state, undo, late);
  const { dynamodb, events, functions, logger, scheduler, sqs, ssm, steps } = services;
  const secretPath = `/aws-${openSecret(join(state, "endpoint-secret"))}`;
  const server = createHttpServer(
    {
      services: {
        AmazonSQS: sqs.operations,
        AWSStepFunctions: steps.operations,
        AmazonSSM: ssm.operations,
        AWSEvents: events.operations,
      },
      dynamodb: dynamodb.handle,
      paths: [
        { prefix: "/v1/", route: createHttpApi(functions, "Api") },
        { prefix: "/schedules", route: scheduler.route },
        { prefix: "/schedule-groups/", route: scheduler.route },
        { prefix: "/2015-03-31/functions/", route: createInvokeRoute(functions) },
      ],
    },
    secretPath,
    logger,
  );
  late.server = server;
  const port = await listen(server, options.port ?? 0, join(state, "port"));
  const api = `http://127.0.0.1:${port}`;
  const endpoint = `${api}${secretPath}`;
  late.restoreEnvironment = setEnvironment(environmentOf(endpoint));
  const folder = options.stateMachinesFolder;
  await provision({
    endpoint,
    state,
    operations: { ...sqs.operations, ...steps.operations, ...events.operations },
    parameters: ssm.operations,
    scheduler: endpoint,
    stateMachinesFolder:
      folder === undefined ? join(repositoryFolder, "infra", "state-machines") : folder,
    functionNames: (options.functions ?? functionTable).map(({ name }) => name),
  });
  steps.executions.resume();
  events.resume();
  scheduler.start();
  if (options.mover ?? true) {
    const mover = startMover({
      entry: options.moverEntry ?? join(repositoryFolder, "mover", "main.ts"),
      environment: { ...process.env, ...options.moverEnvironment },
      logFile: join(state, "log", "mover.log"),
      logger,
      drainMs: moverDrainMs,
    });
    undo.push(() => mover.stop());
  }
  logger.info("ready", { api });
  let closing: Promise<void> | undefined;
  return {
    endpoint,
    api,
    tokenFile: join(state, "token"),
    state,
    close: () => {
      closing ??= unwind();
      return closing;
    },
  };
}

/**
 * Opens everything that keeps state. What is undone is undone in reverse: first no new work (mover, schedules), then
 * running functions end while everything they call still answers, then executions rest, then the services close.
 */
async function openServices(
  options: LocalStackOptions,
  state: string,
  undo: Undo,
  late: { readonly server?: Server; readonly restoreEnvironment?: () => void },
) {
  const logger = fileLogger(join(state, "log", "stack.log"));
  const functions = createFunctions({
    table: options.functions ?? functionTable,
    rootFolder: repositoryFolder,
    logger,
    ...(options.handlers === undefined ? {} : { handlers: options.handlers }),
  });
  const dynamodb = await openDynamoDb(join(state, "dynamodb"));
  undo.push(() => dynamodb.close());
  const sqs = openSqs(join(state, "sqs"));
  undo.push(() => sqs.close());
  undo.push(() => late.restoreEnvironment?.());
  undo.push(() => (late.server?.listening === true ? closeServer(late.server) : undefined));
  const ssm = openSsm(join(state, "ssm"));
  const targets = createTargets({ functions, sqs, steps: () => steps });
  const events = openEventBridge(join(state, "events"), targets, { logger });
  undo.push(() => events.close());
  const services = createTaskServices({ functions, sqs, events });
  const steps: StepFunctions = openStepFunctions(join(state, "step-functions"), services, {
    logger,
    onEnd: (execution) => {
      events.putEvents([statusChange(execution)]).catch((error: unknown) => {
        logger.error("status change not published", { error: String(error) });
      });
    },
  });
  undo.push(() => steps.executions.suspend());
  undo.push(() => functions.drain(functionsDrainMs));
  const scheduler = openScheduler(join(state, "scheduler"), targets, { logger });
  undo.push(() => scheduler.close());
  return { dynamodb, events, functions, logger, scheduler, sqs, ssm, steps };
}

/** As Step Functions tells the default bus; only of ends. */
function statusChange({ machine, name, startedAt, end }: Execution): JsonObject {
  const detail = {
    executionArn: executionArn(machine, name),
    stateMachineArn: stateMachineArn(machine),
    name,
    status: end?.status ?? "RUNNING",
    startDate: startedAt,
    stopDate: end?.at ?? null,
    error: end?.error ?? null,
    cause: end?.cause ?? null,
  };
  const DetailType = "Step Functions Execution Status Change";
  return { Source: "aws.states", DetailType, Detail: detail };
}

/** What events and schedules may be sent to. */
function createTargets(parts: {
  readonly functions: Functions;
  readonly sqs: Sqs;
  readonly steps: () => StepFunctions;
}) {
  const { functions, sqs, steps } = parts;
  const queueOf = (arn: string) => /^arn:aws:sqs:[^:]*:[^:]*:(.+)$/.exec(arn)?.[1];
  return {
    supports: (arn: string) =>
      functions.has(arn) ||
      queueOf(arn) !== undefined ||
      nameInArn(arn, "stateMachine") !== undefined,
    deliver: async (arn: string, payload: Parameters<Functions["invoke"]>[1]) => {
      const queue = queueOf(arn);
      if (queue !== undefined) await sqs.send(queue, JSON.stringify(payload));
      else if (nameInArn(arn, "stateMachine") !== undefined) {
        await steps().start(arn, JSON.stringify(payload));
      } else await functions.invoke(arn, payload);
    },
  };
}

function createTaskServices(parts: {
  readonly functions: Functions;
  readonly sqs: Sqs;
  readonly events: EventBridge;
}): TaskServices {
  const { functions, sqs, events } = parts;
  return {
    now: Date.now,
    invoke: async (name, payload) => {
      // This process is about to end: the task stays scheduled, and the next process runs it.
      if (functions.draining()) throw new Suspended();
      try {
        return await functions.invoke(name, payload);
      } catch (error) {
        if (!(error instanceof FunctionError)) throw error;
        throw new StateError(error.errorType, JSON.stringify(error.toJson()));
      }
    },
    sendMessage: async ({ QueueUrl, MessageBody, MessageAttributes, DelaySeconds }) => {
      // By the last part only: an execution may carry the URL of an earlier port.
      const name = String(QueueUrl).slice(String(QueueUrl).lastIndexOf("/") + 1);
      if (!sqs.exists(name)) {
        throw new StateError("SQS.QueueDoesNotExistException", `The queue ${name} does not exist`);
      }
      const body = typeof MessageBody === "string" ? MessageBody : JSON.stringify(MessageBody);
      const attributes = (MessageAttributes ?? {}) as JsonObject;
      const delay = DelaySeconds === undefined ? undefined : Number(DelaySeconds);
      const { id } = await sqs.send(name, body, attributes, delay);
      return { MessageId: id };
    },
    putEvents: async ({ Entries }) => {
      const entries = Array.isArray(Entries) ? (Entries as JsonObject[]) : [];
      return throughJson(await events.putEvents(entries));
    },
  };
}

/** The port of the last start is tried first, so that URLs handed out stay good. */
async function listen(server: Server, wanted: number, portFile: string): Promise<number> {
  const last = Number(readFileIfAny(portFile) ?? 0);
  if (wanted === 0 && last > 0 && (await tryListen(server, last))) return last;
  if (!(await tryListen(server, wanted))) {
    throw new Failure("input.invalid", { message: `Port ${wanted} of 127.0.0.1 is in use` });
  }
  const { port } = server.address() as AddressInfo;
  replaceFile(portFile, String(port));
  return port;
}

async function tryListen(server: Server, port: number): Promise<boolean> {
  server.listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EADDRINUSE") return false;
    throw error;
  }
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, "close");
  server.close();
  server.closeAllConnections();
  await closed;
}

/** Returns how to put it back. */
function setEnvironment(variables: Readonly<Record<string, string>>): () => void {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  return () => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
}

/** At each start a large log makes room; one older generation is kept. */
function rotateLogs(folder: string): void {
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".log"))) {
    const path = join(folder, file);
    if (statSync(path).size > logSizeBytesMax) renameSync(path, `${path}.1`);
  }
}

function fileLogger(path: string): Logger {
  const file = openSync(path, "a", 0o600);
  return createJsonLogger((line) => {
    writeSync(file, `${line}\n`);
  });
}
