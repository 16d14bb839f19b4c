import type { Json, JsonObject } from "../json.ts";
import { isJsonObject, jsonSizeBytes } from "../json.ts";
import type {
  Catcher,
  MapState,
  ParallelState,
  State,
  StateMachineBody,
  TaskState,
} from "./asl.ts";
import { ruleHolds } from "./choice.ts";
import { runComposite } from "./composite.ts";
import type { HistoryEvent } from "./execution-log.ts";
import { evaluate, parseExpression } from "./intrinsics.ts";
import { get, type PathScope, place } from "./json-path.ts";
import { fillTemplate } from "./payload-template.ts";
import { sleepUntil } from "./sleep.ts";
import { isTerminal, StateError, Suspended } from "./state-error.ts";
import { type Branch, draw, type Interpreter, randomOf, type Step, write } from "./step.ts";

/**
 * Runs a state machine against its durable log. It is deterministic but for what it reads from the log: run again
 * after a crash, it walks through finished states without effects and goes on where the log ends. Effects outside
 * happen at least once; each state's outcome is written exactly once, and first wins.
 */
const payloadSizeBytesMax = 262_144;

/** Runs from StartAt to the end; throws StateError, or Suspended when the branch's signal is aborted. */
export async function runStates(
  interpreter: Interpreter,
  machine: StateMachineBody,
  input: Json,
  branch: Branch,
): Promise<Json> {
  let name = machine.StartAt;
  let value = input;
  for (let number = 0; ; number += 1) {
    const state = machine.States[name];
    if (state === undefined) throw new StateError("States.Runtime", `No state ${name}`);
    const step: Step = { interpreter, state, name, branch, key: `${branch.path}${number}` };
    const recorded = interpreter.log.find(`${step.key}:exit`);
    const exit = recorded ?? (await runState(step, value));
    branch.lastId = exit.id;
    value = exit.internal?.["output"] ?? null;
    const next = exit.internal?.["next"];
    if (typeof next !== "string") return value;
    name = next;
  }
}

type Result = { readonly output: Json; readonly next: string | undefined };

async function runState(step: Step, input: Json): Promise<HistoryEvent> {
  const { state, name } = step;
  const entered = write(step, "enter", `${state.Type}StateEntered`, {
    details: { name, input: JSON.stringify(input), inputDetails: { truncated: false } },
  });
  const context = contextOf(step, entered);
  let result: Result;
  try {
    result = await outcomeOf(step, { input, context }, entered);
    checkSize(result.output, name);
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    result = caught(step, error, { input, context });
  }
  return write(step, "exit", `${state.Type}StateExited`, {
    details: { name },
    internal: {
      output: result.output,
      ...(result.next === undefined ? {} : { next: result.next }),
    },
  });
}

async function outcomeOf(step: Step, raw: PathScope, entered: HistoryEvent): Promise<Result> {
  const { state } = step;
  const random = randomOf(step);
  if (state.Type === "Fail") throw failureOf(state, raw, random);
  const input = state.InputPath === null ? {} : get(state.InputPath ?? "$", raw);
  const scope: PathScope = { input, context: raw.context };
  const finish = (output: Json): Result => ({
    output: outputOf(state, output, scope.context),
    next: "Next" in state ? state.Next : undefined,
  });
  switch (state.Type) {
    case "Succeed":
      return finish(input);
    case "Pass": {
      const given =
        state.Parameters === undefined ? input : fillTemplate(state.Parameters, scope, random);
      return finish(merge(state.ResultPath, raw.input, state.Result ?? given));
    }
    case "Choice": {
      const rule = state.Choices.find((candidate) => ruleHolds(candidate, scope));
      const next = rule === undefined ? state.Default : String(rule["Next"]);
      if (next === undefined) {
        throw new StateError("States.NoChoiceMatched", `No rule of ${step.name} matched`);
      }
      return { output: outputOf(state, input, scope.context), next };
    }
    case "Wait":
      await sleepUntil(waitEnd(state, scope, entered.at), step.interpreter.now, step.branch.signal);
      return finish(input);
    case "Task":
    case "Map":
    case "Parallel": {
      const result = await attempts(step, state, scope);
      const selected =
        state.ResultSelector === undefined
          ? result
          : fillTemplate(state.ResultSelector, { input: result, context: scope.context }, random);
      return finish(merge(state.ResultPath, raw.input, selected));
    }
    default:
      return state satisfies never;
  }
}

/** Runs the state until it succeeds or its Retry gives up. */
async function attempts(
  step: Step,
  state: TaskState | MapState | ParallelState,
  scope: PathScope,
): Promise<Json> {
  const used = new Map<number, number>();
  for (let attempt = 0; ; attempt += 1) {
    const name = `${step.key}#${attempt}`;
    const context = withRetryCount(scope.context, attempt);
    try {
      return await runAttempt(step, state, name, { input: scope.input, context });
    } catch (error) {
      if (!(error instanceof StateError) || isTerminal(error)) throw error;
      const retriers = state.Retry ?? [];
      const index = retriers.findIndex((retrier) => matches(retrier.ErrorEquals, error));
      const retrier = retriers[index];
      const count = used.get(index) ?? 0;
      if (retrier === undefined || count >= retrier.MaxAttempts) throw error;
      used.set(index, count + 1);
      const wanted = retrier.IntervalSeconds * retrier.BackoffRate ** count;
      const capped = Math.min(wanted, retrier.MaxDelaySeconds ?? wanted, 99_999_999) * 1000;
      const share = draw(step, name).readUInt32BE(0) / 2 ** 32;
      const delayMs = retrier.JitterStrategy === "FULL" ? capped * share : capped;
      const { log, now } = step.interpreter;
      const failedAt = log.find(`${name}:outcome`)?.at ?? now();
      // A next attempt in the log means that this wait is over, whatever the clock says.
      if (log.find(`${step.key}#${attempt + 1}:schedule`) === undefined) {
        await sleepUntil(failedAt + delayMs, now, step.branch.signal);
      }
    }
  }
}

async function runAttempt(
  step: Step,
  state: TaskState | MapState | ParallelState,
  name: string,
  scope: PathScope,
): Promise<Json> {
  const { interpreter, branch } = step;
  if (state.Type !== "Task") return runComposite({ step, state, name, runStates }, scope);
  const random = () => draw(step, `${name}/parameters`);
  const parameters = (token: string | undefined): Json => {
    const task = token === undefined ? {} : { Task: { Token: token } };
    const context = { ...(isJsonObject(scope.context) ? scope.context : {}), ...task };
    const filled =
      state.Parameters === undefined
        ? scope.input
        : fillTemplate(state.Parameters, { input: scope.input, context }, random);
    checkSize(filled, step.name);
    return filled;
  };
  const output = await interpreter.runTask({
    state,
    name,
    log: interpreter.log,
    branch,
    parameters,
    scope,
  });
  checkSize(output, step.name);
  return output;
}

function caught(step: Step, error: StateError, raw: PathScope): Result {
  const { state, branch } = step;
  if (branch.signal.aborted) throw new Suspended();
  const catchers = "Catch" in state && !isTerminal(error) ? (state.Catch ?? []) : [];
  const catcher = catchers.find(({ ErrorEquals }: Catcher) => matches(ErrorEquals, error));
  if (catcher === undefined) throw error;
  const output = { Error: error.error, Cause: error.cause_ };
  return { output: merge(catcher.ResultPath, raw.input, output), next: catcher.Next };
}

function matches(patterns: readonly string[], { error }: StateError): boolean {
  const isTimeout = error === "States.Timeout" || error === "States.HeartbeatTimeout";
  return patterns.some(
    (pattern) =>
      pattern === error ||
      pattern === "States.ALL" ||
      (pattern === "States.Timeout" && isTimeout) ||
      (pattern === "States.TaskFailed" && !isTimeout),
  );
}

const merge = (path: string | null | undefined, input: Json, result: Json): Json =>
  path === null ? input : place(path ?? "$", input, result);

function outputOf(state: State, output: Json, context: Json): Json {
  const path = "OutputPath" in state ? state.OutputPath : undefined;
  return path === null ? {} : get(path ?? "$", { input: output, context });
}

function checkSize(value: Json, name: string): void {
  if (jsonSizeBytes(value) <= payloadSizeBytesMax) return;
  throw new StateError(
    "States.DataLimitExceeded",
    `The state/task '${name}' returned a result with a size exceeding the maximum number of bytes service limit.`,
  );
}

function failureOf(
  state: Extract<State, { Type: "Fail" }>,
  scope: PathScope,
  random: () => Buffer,
): StateError {
  const read = (path: string | undefined, text: string | undefined) =>
    path === undefined ? (text ?? "") : String(evaluate(parseExpression(path), scope, random));
  return new StateError(read(state.ErrorPath, state.Error), read(state.CausePath, state.Cause));
}

function waitEnd(
  state: Extract<State, { Type: "Wait" }>,
  scope: PathScope,
  enteredAt: number,
): number {
  const at = state.TimestampPath === undefined ? state.Timestamp : get(state.TimestampPath, scope);
  const end =
    at === undefined
      ? enteredAt +
        Number(state.SecondsPath === undefined ? state.Seconds : get(state.SecondsPath, scope)) *
          1000
      : Date.parse(String(at));
  if (Number.isFinite(end)) return end;
  throw new StateError("States.Runtime", "The Wait state's time is not understood");
}

function contextOf(step: Step, entered: HistoryEvent): JsonObject {
  const { map } = step.branch;
  return {
    ...step.interpreter.context,
    State: { Name: step.name, EnteredTime: new Date(entered.at).toISOString(), RetryCount: 0 },
    ...(map === undefined ? {} : { Map: map }),
  };
}

function withRetryCount(context: Json, count: number): Json {
  if (!isJsonObject(context) || !isJsonObject(context["State"])) return context;
  return { ...context, State: { ...context["State"], RetryCount: count } };
}
