import { createHash } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import type { State, TaskState } from "./asl.ts";
import type { ExecutionLog, HistoryEvent } from "./execution-log.ts";
import type { PathScope } from "./json-path.ts";
import { Suspended } from "./state-error.ts";

/** What the parts of the interpreter share: the place in the workflow, and how it is written to the log. */
export type TaskRunner = (attempt: TaskAttempt) => Promise<Json>;

/** One attempt of a Task state; the runner answers with its output or throws StateError. */
export type TaskAttempt = {
  readonly state: TaskState;
  /** Name of the attempt in the log; its slots start with it. */
  readonly name: string;
  readonly log: ExecutionLog;
  readonly branch: Branch;
  /** Parameters filled with the given token as `$$.Task.Token`. */
  readonly parameters: (token: string | undefined) => Json;
  readonly scope: PathScope;
};

export type Branch = {
  /** Prefix of all slots of this branch. */
  readonly path: string;
  readonly signal: AbortSignal;
  lastId: number;
  /** `Map` member of the context object, inside of a Map. */
  readonly map: JsonObject | undefined;
};

export type Interpreter = {
  readonly log: ExecutionLog;
  readonly runTask: TaskRunner;
  /** `Execution` and `StateMachine` members of the context object. */
  readonly context: JsonObject;
  readonly now: () => number;
};

export type Step = {
  readonly interpreter: Interpreter;
  readonly state: State;
  readonly name: string;
  readonly branch: Branch;
  readonly key: string;
};

/** 32 bytes that depend only on the execution and the place in it: a replay draws the same. */
export function draw(step: Step, place: string): Buffer {
  const id = JSON.stringify(step.interpreter.context);
  return createHash("sha256").update(`${id}\n${place}`).digest();
}

export function randomOf(step: Step): () => Buffer {
  let count = 0;
  return () => {
    count += 1;
    return draw(step, `${step.key}/${count}`);
  };
}

type EventFields = { readonly details?: JsonObject; readonly internal?: JsonObject };

export const write = (step: Step, kind: string, type: string, fields: EventFields): HistoryEvent =>
  writeIn(step, `${step.key}:${kind}`, type, fields);

export function writeIn(step: Step, slot: string, type: string, fields: EventFields): HistoryEvent {
  const { interpreter, branch } = step;
  const existing = interpreter.log.find(slot);
  if (existing === undefined && branch.signal.aborted) throw new Suspended();
  const event =
    existing ?? interpreter.log.write({ slot, type, previousId: branch.lastId, ...fields });
  branch.lastId = event.id;
  return event;
}
