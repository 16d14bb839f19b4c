import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@holdfast/shared/ports/logger";
import { z } from "zod";
import { readAppendLog } from "../durable/append-log.ts";
import { readFileIfAny, replaceFile } from "../durable/json-file.ts";
import type { Json, JsonObject } from "../json.ts";
import { parseJson } from "../json.ts";
import { executionArn, stateMachineArn } from "../names.ts";
import { parseStateMachine, type StateMachine } from "./asl.ts";
import { type ExecutionLog, type HistoryEvent, openExecutionLog } from "./execution-log.ts";
import { runStates } from "./interpreter.ts";
import { sleepUntil } from "./sleep.ts";
import { StateError, Suspended } from "./state-error.ts";
import { newTaskToken } from "./task-token.ts";
import { createTaskRunner, type TaskServices, taskProblem } from "./tasks.ts";

/**
 * All executions: the running ones with their logs, the ended ones as summaries. An execution exists from the moment
 * its first event is on the disk, runs on after any crash, and ends exactly once, with the event in the slot `end`.
 */
export type Execution = {
  readonly machine: string;
  readonly name: string;
  readonly startedAt: number;
  readonly input: string;
  /** Undefined while it runs. */
  readonly end: ExecutionEnd | undefined;
};

const ends = ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"] as const;
export type ExecutionEnd = {
  readonly status: (typeof ends)[number];
  readonly at: number;
  readonly output?: string;
  readonly error?: string;
  readonly cause?: string;
};

export type RunningExecution = Execution & {
  readonly log: ExecutionLog;
  /** Undefined when this release does not run what an earlier one accepted. */
  readonly definition: StateMachine | undefined;
  readonly controller: AbortController;
  /** Last heartbeats by attempt; only in memory: a restart counts as one. */
  readonly heartbeats: Map<string, number>;
};

const Summary = z.strictObject({
  machine: z.string(),
  name: z.string(),
  startedAt: z.number(),
  input: z.string(),
  end: z.strictObject({
    status: z.enum(ends),
    at: z.number(),
    output: z.string().optional(),
    error: z.string().optional(),
    cause: z.string().optional(),
  }),
});

export type Executions = {
  all(): readonly Execution[];
  find(machine: string, name: string): Execution | undefined;
  running(machine: string, name: string): RunningExecution | undefined;
  start(machine: string, name: string, input: string, definition: string): Promise<Execution>;
  stop(execution: RunningExecution, error: string, cause: string): Promise<void>;
  history(execution: Execution): readonly HistoryEvent[];
  /** Lets the executions that a former process left run on; to be called when their surroundings are up. */
  resume(): void;
  /** Stops running them; nothing is lost, the next process resumes. */
  suspend(): Promise<void>;
};

/** Step Functions forgets ended executions after this time, and so do we. */
const keptMs = 90 * 86_400_000;

export function openExecutions(
  folder: string,
  services: TaskServices,
  options: { readonly logger: Logger; readonly onEnd?: (execution: Execution) => void },
): Executions {
  const { logger } = options;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const executions = new Map<string, Execution>();
  const running = new Map<string, RunningExecution>();
  const runs = new Set<Promise<void>>();
  const endings = new Map<string, Promise<void>>();
  let suspended = false;

  const idOf = (machine: string, name: string) => `${machine}/${name}`;
  const fileOf = ({ machine, name }: { machine: string; name: string }) =>
    join(folder, `x-${encodeURIComponent(machine)}`, `x-${encodeURIComponent(name)}`);

  const runTask = createTaskRunner(services, {
    issue: ({ log, name }) => {
      const owner = [...running.values()].find((execution) => execution.log === log);
      if (owner === undefined) throw new Suspended();
      return newTaskToken({ machine: owner.machine, execution: owner.name, attempt: name });
    },
    heard: ({ log, name }) =>
      [...running.values()].find((execution) => execution.log === log)?.heartbeats.get(name),
  });

  for (const machine of readdirSync(folder)) {
    for (const file of readdirSync(join(folder, machine))) load(join(folder, machine, file));
  }

  function load(path: string): void {
    if (path.endsWith(".json")) {
      const summary = Summary.parse(parseJson(readFileIfAny(path) ?? ""));
      if (summary.end.at + keptMs < services.now()) {
        rmSync(path.replace(/\.json$/, ".jsonl"), { force: true });
        rmSync(path);
        return;
      }
      executions.set(idOf(summary.machine, summary.name), summary as Execution);
      return;
    }
    if (!path.endsWith(".jsonl")) {
      rmSync(path);
      return;
    }
    if (readFileIfAny(path.replace(/\.jsonl$/, ".json")) !== undefined) return;
    const log = openExecutionLog(path, services.now);
    const [start] = log.events;
    if (start === undefined) {
      // The crash came before the first event: whoever asked for it was never told that it runs.
      log.close();
      rmSync(path);
      return;
    }
    adopt(log, start);
  }

  function adopt(log: ExecutionLog, start: HistoryEvent): RunningExecution {
    const { machine, name, input, definition } = start.internal as Record<string, string>;
    const execution: RunningExecution = {
      machine: String(machine),
      name: String(name),
      startedAt: start.at,
      input: String(input),
      end: undefined,
      log,
      definition: parseIfAccepted(String(definition)),
      controller: new AbortController(),
      heartbeats: new Map(),
    };
    const id = idOf(execution.machine, execution.name);
    executions.set(id, execution);
    running.set(id, execution);
    return execution;
  }

  function parseIfAccepted(definition: string): StateMachine | undefined {
    try {
      return parseStateMachine(definition, taskProblem);
    } catch (error) {
      logger.error("definition not accepted", { error: String(error) });
      return undefined;
    }
  }

  function launch(execution: RunningExecution): void {
    const run = runToEnd(execution).catch((error: unknown) => {
      if (error instanceof Suspended) return;
      const stack = error instanceof Error ? error.stack : String(error);
      logger.error("execution broke", { name: execution.name, stack });
    });
    runs.add(run);
    run.finally(() => runs.delete(run)).catch(() => undefined);
  }

  async function runToEnd(execution: RunningExecution): Promise<void> {
    const { log, controller, definition } = execution;
    if (log.find("end") !== undefined) return recordEnd(execution);
    if (definition === undefined) {
      const cause = "This release does not accept the execution's definition";
      writeEnd(execution, 1, "ExecutionFailed", { error: "States.Runtime", cause });
      return recordEnd(execution);
    }
    if (definition.TimeoutSeconds !== undefined) watchTimeout(execution, definition.TimeoutSeconds);
    const branch = { path: "", signal: controller.signal, lastId: 1, map: undefined };
    const context = contextOf(execution);
    try {
      const interpreter = { log, runTask, context, now: services.now };
      const input = parseJson(execution.input);
      const output = await runStates(interpreter, definition, input, branch);
      if (controller.signal.aborted) return;
      const text = JSON.stringify(output);
      writeEnd(execution, branch.lastId, "ExecutionSucceeded", { output: text });
    } catch (error) {
      if (controller.signal.aborted || error instanceof Suspended) return;
      const known =
        error instanceof StateError ? error : new StateError("States.Runtime", String(error));
      if (known !== error) logger.error("interpreter failed", { stack: (error as Error).stack });
      const details = { error: known.error, cause: known.cause_ };
      writeEnd(execution, branch.lastId, "ExecutionFailed", details);
    }
    await recordEnd(execution);
  }

  function watchTimeout(execution: RunningExecution, seconds: number): void {
    const { signal } = execution.controller;
    sleepUntil(execution.startedAt + seconds * 1000, services.now, signal).then(
      () => {
        writeEnd(execution, execution.log.events.length, "ExecutionTimedOut", {
          error: "States.Timeout",
        });
        return recordEnd(execution);
      },
      () => undefined,
    );
  }

  function writeEnd(
    { log }: RunningExecution,
    previousId: number,
    type: string,
    details: JsonObject,
  ): void {
    log.write({ slot: "end", type, previousId, details });
  }

  /** Once for each execution; whoever comes second waits for the first. */
  function recordEnd(execution: RunningExecution): Promise<void> {
    const id = idOf(execution.machine, execution.name);
    const known = endings.get(id);
    if (known !== undefined) return known;
    const ending = summarise(execution, id).finally(() => endings.delete(id));
    endings.set(id, ending);
    return ending;
  }

  async function summarise(execution: RunningExecution, id: string): Promise<void> {
    const { log, machine, name, startedAt, input } = execution;
    const event = log.find("end");
    if (event === undefined || running.get(id) !== execution) return;
    execution.controller.abort(new Suspended());
    await log.flush();
    const end = endOf(event);
    const summary = { machine, name, startedAt, input, end };
    replaceFile(`${fileOf(execution)}.json`, JSON.stringify(summary));
    executions.set(id, summary);
    running.delete(id);
    log.close();
    logger.info("execution ended", { machine, name, status: end.status, error: end.error });
    options.onEnd?.(summary);
  }

  return {
    all: () => [...executions.values()],
    find: (machine, name) => executions.get(idOf(machine, name)),
    running: (machine, name) => running.get(idOf(machine, name)),
    start: async (machine, name, input, definition) => {
      const path = `${fileOf({ machine, name })}.jsonl`;
      mkdirSync(join(path, ".."), { recursive: true, mode: 0o700 });
      const log = openExecutionLog(path, services.now);
      const start = log.write({
        slot: "start",
        type: "ExecutionStarted",
        previousId: 0,
        details: { input, inputDetails: { truncated: false } },
        internal: { machine, name, input, definition },
      });
      const execution = adopt(log, start);
      await log.flush();
      logger.info("execution started", { machine, name });
      if (!suspended) launch(execution);
      return execution;
    },
    stop: async (execution, error, cause) => {
      const details = { error, cause };
      writeEnd(execution, execution.log.events.length, "ExecutionAborted", details);
      await recordEnd(execution);
    },
    history: (execution) => {
      const live = running.get(idOf(execution.machine, execution.name));
      if (live !== undefined) return live.log.events;
      return readAppendLog(`${fileOf(execution)}.jsonl`) as unknown as readonly HistoryEvent[];
    },
    resume: () => {
      for (const execution of running.values()) {
        logger.info("execution resumed", { machine: execution.machine, name: execution.name });
        launch(execution);
      }
    },
    suspend: async () => {
      suspended = true;
      for (const execution of running.values()) execution.controller.abort(new Suspended());
      await Promise.all([...runs, ...endings.values()]);
      for (const execution of running.values()) execution.log.close();
    },
  };
}

function contextOf(execution: RunningExecution): JsonObject {
  const { machine, name, startedAt, input } = execution;
  return {
    Execution: {
      Id: executionArn(machine, name),
      Input: parseJson(input) satisfies Json,
      Name: name,
      RoleArn: "arn:aws:iam::000000000000:role/local",
      StartTime: new Date(startedAt).toISOString(),
      RedriveCount: 0,
    },
    StateMachine: { Id: stateMachineArn(machine), Name: machine },
  };
}

function endOf({ type, at, details }: HistoryEvent): ExecutionEnd {
  const { output, error, cause } = details ?? {};
  const statuses: Readonly<Record<string, ExecutionEnd["status"]>> = {
    ExecutionSucceeded: "SUCCEEDED",
    ExecutionFailed: "FAILED",
    ExecutionTimedOut: "TIMED_OUT",
    ExecutionAborted: "ABORTED",
  };
  return {
    status: statuses[type] ?? "FAILED",
    at,
    ...(typeof output === "string" ? { output } : {}),
    ...(typeof error === "string" ? { error } : {}),
    ...(typeof cause === "string" ? { cause } : {}),
  };
}
