import type { Json, JsonObject } from "../json.ts";
import { isJsonObject } from "../json.ts";
import { nameInArn, region } from "../names.ts";
import type { TaskState } from "./asl.ts";
import type { HistoryEvent } from "./execution-log.ts";
import { get } from "./json-path.ts";
import { sleepUntil } from "./sleep.ts";
import { StateError, Suspended } from "./state-error.ts";
import type { TaskAttempt, TaskRunner } from "./step.ts";
import { encodeToken, type TaskToken } from "./task-token.ts";

/** What tasks reach outside of the interpreter. */
export type TaskServices = {
  /** Throws StateError with the function's error as Lambda reports it. */
  invoke(functionName: string, payload: Json): Promise<Json>;
  /** Throws StateError when the queue does not exist. Returns the service's answer. */
  sendMessage(parameters: JsonObject): Promise<Json>;
  putEvents(parameters: JsonObject): Promise<Json>;
  readonly now: () => number;
};

type Resource =
  | { readonly kind: "function"; readonly functionName: string; readonly token: false }
  | { readonly kind: "invoke" | "sqs" | "events"; readonly token: boolean };

const integrations: Readonly<Record<string, Resource>> = {
  "arn:aws:states:::lambda:invoke": { kind: "invoke", token: false },
  "arn:aws:states:::lambda:invoke.waitForTaskToken": { kind: "invoke", token: true },
  "arn:aws:states:::sqs:sendMessage": { kind: "sqs", token: false },
  "arn:aws:states:::sqs:sendMessage.waitForTaskToken": { kind: "sqs", token: true },
  "arn:aws:states:::events:putEvents": { kind: "events", token: false },
};

const timeoutSecondsDefault = 99_999_999;

/** Why a Task state cannot run here; undefined when it can. */
export function taskProblem(state: TaskState): string | undefined {
  const resource = resourceOf(state.Resource);
  if (resource === undefined) return `the resource ${state.Resource} is not supported`;
  const hasHeartbeat =
    state.HeartbeatSeconds !== undefined || state.HeartbeatSecondsPath !== undefined;
  if (hasHeartbeat && !resource.token) return "a heartbeat needs .waitForTaskToken";
  if (
    state.HeartbeatSeconds !== undefined &&
    state.HeartbeatSeconds >= (state.TimeoutSeconds ?? timeoutSecondsDefault)
  ) {
    return "HeartbeatSeconds has to be smaller than TimeoutSeconds";
  }
  if (resource.kind !== "function" && !isJsonObject(state.Parameters)) {
    return "Parameters are needed";
  }
  if (resource.token && !JSON.stringify(state.Parameters).includes("$$.Task.Token")) {
    return "Parameters do not pass $$.Task.Token on";
  }
  return undefined;
}

function resourceOf(arn: string): Resource | undefined {
  const functionName = nameInArn(arn, "function");
  if (functionName !== undefined) return { kind: "function", functionName, token: false };
  return Object.hasOwn(integrations, arn) ? integrations[arn] : undefined;
}

/** `heard` is asked for the last heartbeat of a token's attempt, in milliseconds since 1970. */
export function createTaskRunner(
  services: TaskServices,
  tokens: {
    issue(attempt: TaskAttempt): TaskToken;
    heard(attempt: TaskAttempt): number | undefined;
  },
): TaskRunner {
  return async (attempt) => {
    const { log, name } = attempt;
    const slot = `${name}:outcome`;
    const recorded = log.find(slot);
    if (recorded !== undefined) return outcomeIn(attempt, recorded);
    const resource = resourceOf(attempt.state.Resource);
    if (resource === undefined) {
      throw new StateError("States.Runtime", `${attempt.state.Resource} is not supported`);
    }
    const run: Run = { services, attempt, resource, limits: limitsOf(attempt), slot };
    // After a restart the limits run anew: time in which this process was away is not the task's fault.
    const resumed = log.find(`${name}:schedule`) !== undefined;
    const token = resource.token ? tokenOf(run, tokens.issue) : undefined;
    const scheduled = schedule(run, token);
    const since = resumed ? services.now() : scheduled.at;
    const stop = new AbortController();
    const signal = AbortSignal.any([attempt.branch.signal, stop.signal]);
    const watching = watchLimits(run, since, () => tokens.heard(attempt), signal);
    const acting = act(run, token);
    try {
      await Promise.race([log.filled(slot, attempt.branch.signal), watching, acting]);
      await log.filled(slot, attempt.branch.signal);
    } finally {
      stop.abort();
      acting.catch(() => undefined);
      await watching;
    }
    const outcome = log.find(slot);
    if (outcome === undefined) throw new Suspended();
    return outcomeIn(attempt, outcome);
  };
}

type Limits = { readonly timeoutMs: number; readonly heartbeatMs: number };
type Run = {
  readonly services: TaskServices;
  readonly attempt: TaskAttempt;
  readonly resource: Resource;
  readonly limits: Limits;
  readonly slot: string;
};

function limitsOf({ state, scope }: TaskAttempt): Limits {
  const seconds = (path: string | undefined, given: number | undefined) =>
    path === undefined ? given : Number(get(path, scope));
  const timeout = seconds(state.TimeoutSecondsPath, state.TimeoutSeconds) ?? timeoutSecondsDefault;
  const heartbeat = seconds(state.HeartbeatSecondsPath, state.HeartbeatSeconds);
  return { timeoutMs: timeout * 1000, heartbeatMs: (heartbeat ?? Infinity) * 1000 };
}

function tokenOf({ attempt }: Run, issue: (attempt: TaskAttempt) => TaskToken): string {
  const earlier = attempt.log.find(`${attempt.name}:schedule`)?.internal?.["token"];
  return typeof earlier === "string" ? earlier : encodeToken(issue(attempt));
}

function schedule({ attempt, resource, limits }: Run, token: string | undefined): HistoryEvent {
  const { branch, log, name, state } = attempt;
  const timeoutInSeconds = limits.timeoutMs / 1000;
  const parameters = JSON.stringify(attempt.parameters(token));
  const [, resourceType = "lambda", resourceName = ""] =
    /:::([a-z]+):(.+)$/.exec(state.Resource) ?? [];
  const details: JsonObject =
    resource.kind === "function"
      ? { resource: state.Resource, input: parameters, timeoutInSeconds }
      : {
          resourceType,
          resource: resourceName,
          region,
          parameters,
          timeoutInSeconds,
          ...(Number.isFinite(limits.heartbeatMs)
            ? { heartbeatInSeconds: limits.heartbeatMs / 1000 }
            : {}),
        };
  const event = log.write({
    slot: `${name}:schedule`,
    type: resource.kind === "function" ? "LambdaFunctionScheduled" : "TaskScheduled",
    previousId: branch.lastId,
    details,
    ...(token === undefined ? {} : { internal: { token } }),
  });
  branch.lastId = event.id;
  const started = log.write({
    slot: `${name}:start`,
    type: resource.kind === "function" ? "LambdaFunctionStarted" : "TaskStarted",
    previousId: branch.lastId,
    ...(resource.kind === "function" ? {} : { details: { resourceType, resource: resourceName } }),
  });
  branch.lastId = started.id;
  return event;
}

/** Does the task's effect. With a token the outcome comes from outside, else it is written here. */
async function act(run: Run, token: string | undefined): Promise<void> {
  const { attempt, resource, services } = run;
  const { log, name, branch } = attempt;
  const submit = `${name}:submit`;
  if (token !== undefined && log.find(submit) !== undefined) return;
  const parameters = attempt.parameters(token);
  try {
    // On the disk before it is done: a token that somebody holds is always known after a restart.
    await log.flush();
    if (branch.signal.aborted) return;
    const output = await perform(services, resource, parameters);
    if (branch.signal.aborted) return;
    if (token === undefined) {
      succeed(attempt, output);
      return;
    }
    const event = log.write({
      slot: submit,
      type: "TaskSubmitted",
      previousId: branch.lastId,
      details: { ...typeOf(attempt.state), output: JSON.stringify(output) },
    });
    branch.lastId = Math.max(branch.lastId, event.id);
    await log.flush();
  } catch (error) {
    if (branch.signal.aborted || error instanceof Suspended) return;
    if (!(error instanceof StateError)) throw error;
    fail(attempt, error.error, error.cause_);
  }
}

function perform(services: TaskServices, resource: Resource, parameters: Json): Promise<Json> {
  if (resource.kind === "function") return services.invoke(resource.functionName, parameters);
  if (!isJsonObject(parameters)) {
    throw new StateError("States.Runtime", "The parameters have to be an object");
  }
  switch (resource.kind) {
    case "invoke":
      return invokeByParameters(services, parameters);
    case "sqs":
      return services.sendMessage(parameters);
    case "events":
      return services.putEvents(parameters);
    default:
      return resource satisfies never;
  }
}

async function invokeByParameters(services: TaskServices, parameters: JsonObject): Promise<Json> {
  const { FunctionName, Payload = {} } = parameters;
  const name = String(FunctionName);
  const Output = await services.invoke(nameInArn(name, "function") ?? name, Payload);
  return { ExecutedVersion: "$LATEST", Payload: Output, StatusCode: 200 };
}

/** Writes the time-out as the outcome when a limit passes first. */
async function watchLimits(
  run: Run,
  since: number,
  heard: () => number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { attempt, limits, services, slot } = run;
  const timeoutAt = since + limits.timeoutMs;
  try {
    for (;;) {
      const silentAt = Math.max(since, heard() ?? 0) + limits.heartbeatMs;
      await sleepUntil(Math.min(timeoutAt, silentAt), services.now, signal);
      const now = services.now();
      const lastHeard = Math.max(since, heard() ?? 0);
      const isSilent = now >= lastHeard + limits.heartbeatMs;
      if (now < timeoutAt && !isSilent) continue;
      const error = now >= timeoutAt ? "States.Timeout" : "States.HeartbeatTimeout";
      attempt.log.write({
        slot,
        type: run.resource.kind === "function" ? "LambdaFunctionTimedOut" : "TaskTimedOut",
        previousId: attempt.branch.lastId,
        details: { ...typeOf(attempt.state), error },
        internal: { error, cause: "" },
      });
      return;
    }
  } catch (error) {
    if (!(error instanceof Suspended)) throw error;
  }
}

const typeOf = ({ Resource: resource }: TaskState): JsonObject => {
  const [, resourceType, name] = /:::([a-z]+):(.+)$/.exec(resource) ?? [];
  return resourceType === undefined || name === undefined ? {} : { resourceType, resource: name };
};

const isFunction = (state: TaskState) => nameInArn(state.Resource, "function") !== undefined;

type Answerable = Pick<TaskAttempt, "log" | "name" | "state"> & {
  readonly branch: { readonly lastId: number };
};

export function succeed(attempt: Answerable, output: Json): void {
  attempt.log.write({
    slot: `${attempt.name}:outcome`,
    type: isFunction(attempt.state) ? "LambdaFunctionSucceeded" : "TaskSucceeded",
    previousId: attempt.branch.lastId,
    details: typeOf(attempt.state),
    internal: { output },
  });
}

export function fail(attempt: Answerable, error: string, cause: string): void {
  attempt.log.write({
    slot: `${attempt.name}:outcome`,
    type: isFunction(attempt.state) ? "LambdaFunctionFailed" : "TaskFailed",
    previousId: attempt.branch.lastId,
    details: { ...typeOf(attempt.state), error, cause },
    internal: { error, cause },
  });
}

function outcomeIn({ branch }: TaskAttempt, event: HistoryEvent): Json {
  branch.lastId = event.id;
  const { output, error, cause } = event.internal ?? {};
  if (typeof error === "string") throw new StateError(error, String(cause ?? ""));
  return output ?? null;
}
