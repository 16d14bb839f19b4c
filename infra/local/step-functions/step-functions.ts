import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@holdfast/shared/ports/logger";
import { z } from "zod";
import { AwsError } from "../aws-error.ts";
import { openJsonMapFile } from "../durable/json-file.ts";
import type { Json, JsonObject } from "../json.ts";
import { parseJson } from "../json.ts";
import { account, executionArn, nameInArn, stateMachineArn } from "../names.ts";
import { epochSeconds, type Operations, operation } from "../operations.ts";
import { parseStateMachine } from "./asl.ts";
import { isOpen, toApiEvent } from "./execution-log.ts";
import { type Execution, type Executions, openExecutions } from "./executions.ts";
import { decodeToken } from "./task-token.ts";
import { fail, succeed, type TaskServices, taskProblem } from "./tasks.ts";

/** Step Functions: standard workflows. The interpreter and its promises are in interpreter.ts and executions.ts. */
export type StepFunctions = {
  readonly operations: Operations;
  readonly executions: Executions;
  start(machineArn: string, input: string, name?: string): Promise<Execution>;
};

const payloadSizeBytesMax = 262_144;

const Machine = z.strictObject({
  name: z.string(),
  definition: z.string(),
  roleArn: z.string(),
  createdAt: z.number(),
  updatedAt: z.number(),
  revision: z.string(),
});
type Machine = z.infer<typeof Machine>;

const nameShape = /^[^\s<>{}[\]?*"#%\\^|~`$&,;:/\p{Cc}]{1,80}$/u;

export function openStepFunctions(
  folder: string,
  services: TaskServices,
  options: { readonly logger: Logger; readonly onEnd?: (execution: Execution) => void },
): StepFunctions {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const machines = openJsonMapFile(join(folder, "state-machines.json"), (v) => Machine.parse(v));
  const executions = openExecutions(join(folder, "executions"), services, options);
  const { now } = services;

  function findMachine(arn: string): Machine {
    const machine = machines.get(nameInArn(arn, "stateMachine") ?? "");
    if (machine !== undefined) return machine;
    throw new AwsError("StateMachineDoesNotExist", `State Machine Does Not Exist: '${arn}'`);
  }
  function findExecution(arn: string): Execution {
    const [machine = "", name = ""] = arn.split(":").slice(-2);
    const found = executions.find(machine, name);
    if (found !== undefined && executionArn(machine, name) === arn) return found;
    throw new AwsError("ExecutionDoesNotExist", `Execution Does Not Exist: '${arn}'`);
  }

  async function start(arn: string, input: string, name: string = randomUUID()) {
    const machine = findMachine(arn);
    if (!nameShape.test(name)) throw new AwsError("InvalidName", `Invalid name: '${name}'`);
    checkJson(input, "InvalidExecutionInput", "Invalid State Machine Execution Input");
    const existing = executions.find(machine.name, name);
    if (existing === undefined) {
      return executions.start(machine.name, name, input, machine.definition);
    }
    if (existing.end === undefined && existing.input === input) return existing;
    const taken = executionArn(machine.name, name);
    throw new AwsError("ExecutionAlreadyExists", `Execution Already Exists: '${taken}'`);
  }

  /** The attempt that a token answers for. Throws what Step Functions documents for the callbacks. */
  function attemptOf(text: string) {
    const token = decodeToken(text);
    if (token === undefined) throw new AwsError("InvalidToken", "Invalid Token");
    const execution = executions.running(token.machine, token.execution);
    if (execution === undefined) {
      if (executions.find(token.machine, token.execution) !== undefined) throw timedOut();
      throw new AwsError("TaskDoesNotExist", "Task does not exist");
    }
    const scheduled = execution.log.find(`${token.attempt}:schedule`);
    if (scheduled?.internal?.["token"] !== text) {
      throw new AwsError("TaskDoesNotExist", "Task does not exist");
    }
    if (!isOpen(execution.log, token.attempt)) throw timedOut();
    const submitted = execution.log.find(`${token.attempt}:submit`) ?? scheduled;
    return {
      log: execution.log,
      name: token.attempt,
      state: taskOf(scheduled.details),
      branch: { lastId: submitted.id },
      execution,
    };
  }

  const operations: Operations = {
    ...machineOperations({ machines, findMachine, now }),
    ...executionOperations({ executions, findMachine, findExecution, start }),
    SendTaskSuccess: operation(
      z.strictObject({ taskToken: z.string().max(2048), output: z.string() }),
      async ({ taskToken, output }) => {
        const attempt = attemptOf(taskToken);
        succeed(attempt, checkJson(output, "InvalidOutput", "Invalid Output"));
        await attempt.log.flush();
        return {};
      },
    ),
    SendTaskFailure: operation(
      z.strictObject({
        taskToken: z.string().max(2048),
        error: z.string().max(256).default(""),
        cause: z.string().max(32_768).default(""),
      }),
      async ({ taskToken, error, cause }) => {
        const attempt = attemptOf(taskToken);
        fail(attempt, error, cause);
        await attempt.log.flush();
        return {};
      },
    ),
    SendTaskHeartbeat: operation(z.strictObject({ taskToken: z.string().max(2048) }), (input) => {
      const attempt = attemptOf(input.taskToken);
      attempt.execution.heartbeats.set(attempt.name, now());
      return {};
    }),
  };
  return { operations, executions, start };
}

const timedOut = () =>
  new AwsError("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'");

/** Only the resource of a task with a token matters to its answer; the history's details have it. */
function taskOf(details: JsonObject | undefined) {
  const Resource = `arn:aws:states:::${String(details?.["resourceType"])}:${String(details?.["resource"])}`;
  return { Type: "Task" as const, Resource };
}

function checkJson(text: string, error: string, message: string): Json {
  if (Buffer.byteLength(text) > payloadSizeBytesMax) {
    throw new AwsError(error, `${message}: more than ${payloadSizeBytesMax} bytes`);
  }
  try {
    return parseJson(text);
  } catch {
    throw new AwsError(error, `${message}: not JSON`);
  }
}

function machineOperations({
  machines,
  findMachine,
  now,
}: {
  readonly machines: ReturnType<typeof openJsonMapFile<Machine>>;
  readonly findMachine: (arn: string) => Machine;
  readonly now: () => number;
}): Operations {
  const definition = z.string().max(1_048_576);
  const ignored = {
    tags: z.array(z.unknown()).optional(),
    loggingConfiguration: z.unknown().optional(),
    tracingConfiguration: z.unknown().optional(),
  };
  return {
    CreateStateMachine: operation(
      z.strictObject({
        name: z.string().regex(nameShape),
        definition,
        roleArn: z.string().default("arn:aws:iam::000000000000:role/local"),
        type: z.literal("STANDARD").optional(),
        ...ignored,
      }),
      (input) => {
        parseStateMachine(input.definition, taskProblem);
        const existing = machines.get(input.name);
        const arn = stateMachineArn(input.name);
        if (existing !== undefined && existing.definition !== input.definition) {
          const message = `State Machine Already Exists: '${arn}'`;
          throw new AwsError("StateMachineAlreadyExists", message);
        }
        const { name, roleArn } = input;
        const createdAt = existing?.createdAt ?? now();
        if (existing === undefined) {
          const revision = randomUUID();
          const machine = { definition: input.definition, createdAt, updatedAt: createdAt };
          machines.set(name, { name, roleArn, revision, ...machine });
        }
        return { stateMachineArn: arn, creationDate: epochSeconds(createdAt) };
      },
    ),
    UpdateStateMachine: operation(
      z.strictObject({
        stateMachineArn: z.string(),
        definition: definition.optional(),
        roleArn: z.string().optional(),
        ...ignored,
      }),
      (input) => {
        const machine = findMachine(input.stateMachineArn);
        const next = input.definition ?? machine.definition;
        parseStateMachine(next, taskProblem);
        const revision = randomUUID();
        const updatedAt = now();
        const roleArn = input.roleArn ?? machine.roleArn;
        machines.set(machine.name, { ...machine, definition: next, roleArn, updatedAt, revision });
        return { updateDate: epochSeconds(updatedAt), revisionId: revision };
      },
    ),
    DescribeStateMachine: operation(
      z.strictObject({ stateMachineArn: z.string(), includedData: z.string().optional() }),
      (input) => {
        const machine = findMachine(input.stateMachineArn);
        return {
          stateMachineArn: stateMachineArn(machine.name),
          name: machine.name,
          status: "ACTIVE",
          definition: machine.definition,
          roleArn: machine.roleArn,
          type: "STANDARD",
          creationDate: epochSeconds(machine.createdAt),
          revisionId: machine.revision,
        };
      },
    ),
    ListStateMachines: operation(
      z.strictObject({
        maxResults: z.int().min(0).max(1000).default(100),
        nextToken: z.string().optional(),
      }),
      ({ maxResults, nextToken }) => {
        const all = machines.values().map((machine) => ({
          stateMachineArn: stateMachineArn(machine.name),
          name: machine.name,
          type: "STANDARD",
          creationDate: epochSeconds(machine.createdAt),
        }));
        const { items, next } = page(all, maxResults === 0 ? 100 : maxResults, nextToken);
        return { stateMachines: items, ...next };
      },
    ),
  };
}

function executionOperations({
  executions,
  findMachine,
  findExecution,
  start,
}: {
  readonly executions: Executions;
  readonly findMachine: (arn: string) => Machine;
  readonly findExecution: (arn: string) => Execution;
  readonly start: StepFunctions["start"];
}): Operations {
  const paging = {
    maxResults: z.int().min(0).max(1000).default(100),
    nextToken: z.string().optional(),
  };
  const executionInput = z.strictObject({
    executionArn: z.string(),
    includedData: z.string().optional(),
  });
  return {
    StartExecution: operation(
      z.strictObject({
        stateMachineArn: z.string(),
        name: z.string().optional(),
        input: z.string().default("{}"),
        traceHeader: z.string().optional(),
      }),
      async ({ stateMachineArn: arn, name, input }) => {
        const execution = await start(arn, input, name);
        return {
          executionArn: executionArn(execution.machine, execution.name),
          startDate: epochSeconds(execution.startedAt),
        };
      },
    ),
    DescribeExecution: operation(executionInput, (input) =>
      describe(findExecution(input.executionArn)),
    ),
    DescribeStateMachineForExecution: operation(executionInput, (input) => {
      const execution = findExecution(input.executionArn);
      const [first] = executions.history(execution);
      return {
        stateMachineArn: stateMachineArn(execution.machine),
        name: execution.machine,
        definition: first?.internal?.["definition"] ?? "",
        roleArn: `arn:aws:iam::${account}:role/local`,
        updateDate: epochSeconds(execution.startedAt),
      };
    }),
    ListExecutions: operation(
      z.strictObject({
        stateMachineArn: z.string(),
        statusFilter: z
          .enum(["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"])
          .optional(),
        ...paging,
      }),
      ({ stateMachineArn: arn, statusFilter, maxResults, nextToken }) => {
        const { name } = findMachine(arn);
        const all = executions
          .all()
          .filter(({ machine }) => machine === name)
          .filter(({ end }) => [undefined, end?.status ?? "RUNNING"].includes(statusFilter))
          .sort((left, right) => right.startedAt - left.startedAt);
        const { items, next } = page(all, maxResults === 0 ? 100 : maxResults, nextToken);
        const listed = items.map((execution) => {
          const { input: _input, inputDetails: _details, ...rest } = describe(execution);
          return rest;
        });
        return { executions: listed, ...next };
      },
    ),
    StopExecution: operation(
      z.strictObject({
        executionArn: z.string(),
        error: z.string().max(256).default(""),
        cause: z.string().max(32_768).default(""),
      }),
      async (input) => {
        const found = findExecution(input.executionArn);
        const live = executions.running(found.machine, found.name);
        if (live !== undefined) await executions.stop(live, input.error, input.cause);
        const end = executions.find(found.machine, found.name)?.end;
        return { stopDate: epochSeconds(end?.at ?? found.startedAt) };
      },
    ),
    GetExecutionHistory: operation(
      z.strictObject({
        executionArn: z.string(),
        reverseOrder: z.boolean().default(false),
        includeExecutionData: z.boolean().default(true),
        ...paging,
      }),
      ({ executionArn: arn, reverseOrder, maxResults, nextToken }) => {
        const events = executions.history(findExecution(arn));
        const ordered = reverseOrder ? events.toReversed() : events;
        const { items, next } = page(ordered, maxResults === 0 ? 100 : maxResults, nextToken);
        return { events: items.map(toApiEvent), ...next };
      },
    ),
  };
}

function describe(execution: Execution) {
  const { machine, name, startedAt, input, end } = execution;
  return {
    executionArn: executionArn(machine, name),
    stateMachineArn: stateMachineArn(machine),
    name,
    status: end?.status ?? "RUNNING",
    startDate: epochSeconds(startedAt),
    input,
    inputDetails: { included: true },
    ...(end === undefined ? {} : { stopDate: epochSeconds(end.at) }),
    ...(end?.output === undefined ? {} : { output: end.output, outputDetails: { included: true } }),
    ...(end?.error === undefined ? {} : { error: end.error }),
    ...(end?.cause === undefined ? {} : { cause: end.cause }),
  };
}

function page<T>(all: readonly T[], size: number, token: string | undefined) {
  const from = token === undefined ? 0 : Number(token);
  if (!Number.isSafeInteger(from) || from < 0) throw new AwsError("InvalidToken", "Invalid Token");
  const items = all.slice(from, from + size);
  const next = from + size < all.length ? { nextToken: String(from + size) } : {};
  return { items, next };
}
