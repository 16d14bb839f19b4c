import { z } from "zod";
import { AwsError } from "../aws-error.ts";
import type { Json, JsonObject } from "../json.ts";
import { isJsonObject, parseJson } from "../json.ts";
import { parsePath } from "./json-path.ts";
import { checkTemplate } from "./payload-template.ts";

/**
 * The Amazon States Language as far as it is run here: JSONPath, all state types, inline Map. Everything else
 * (JSONata, variables, distributed Map, other service integrations) is refused when the state machine is created,
 * by its name, so that nothing is discovered in the middle of a job.
 */

const json: z.ZodType<Json> = z.json() as z.ZodType<Json>;
const template = json.superRefine((value, context) => {
  for (const problem of checkTemplate(value)) context.addIssue(problem);
});
const path = z.string().superRefine((text, context) => {
  const problem = pathProblem(text);
  if (problem !== undefined) context.addIssue(problem);
});
const contextOrPath = path;
const nullablePath = path.nullable().optional();
const seconds = z.int().min(1).max(99_999_999);

const Retrier = z.strictObject({
  ErrorEquals: z.array(z.string()).min(1),
  IntervalSeconds: z.int().min(1).max(99_999_999).default(1),
  MaxAttempts: z.int().min(0).max(99_999_999).default(3),
  BackoffRate: z.number().min(1).default(2),
  MaxDelaySeconds: z.int().min(1).max(31_622_400).optional(),
  JitterStrategy: z.enum(["FULL", "NONE"]).default("NONE"),
  Comment: z.string().optional(),
});
export type Retrier = z.infer<typeof Retrier>;

const Catcher = z.strictObject({
  ErrorEquals: z.array(z.string()).min(1),
  Next: z.string(),
  ResultPath: nullablePath,
  Comment: z.string().optional(),
});
export type Catcher = z.infer<typeof Catcher>;

const comment = { Comment: z.string().optional(), QueryLanguage: z.literal("JSONPath").optional() };
const inputOutput = { InputPath: nullablePath, OutputPath: nullablePath };
const next = { Next: z.string().optional(), End: z.boolean().optional() };
const failures = {
  Retry: z.array(Retrier).optional(),
  Catch: z.array(Catcher).optional(),
};
const results = {
  Parameters: template.optional(),
  ResultSelector: template.optional(),
  ResultPath: nullablePath,
};

export const TaskState = z.strictObject({
  Type: z.literal("Task"),
  Resource: z.string(),
  TimeoutSeconds: seconds.optional(),
  TimeoutSecondsPath: contextOrPath.optional(),
  HeartbeatSeconds: seconds.optional(),
  HeartbeatSecondsPath: contextOrPath.optional(),
  ...comment,
  ...inputOutput,
  ...next,
  ...results,
  ...failures,
});
const PassState = z.strictObject({
  Type: z.literal("Pass"),
  Result: json.optional(),
  Parameters: template.optional(),
  ResultPath: nullablePath,
  ...comment,
  ...inputOutput,
  ...next,
});
const ChoiceState = z.strictObject({
  Type: z.literal("Choice"),
  Choices: z.array(z.record(z.string(), json)).min(1),
  Default: z.string().optional(),
  ...comment,
  ...inputOutput,
});
const WaitState = z.strictObject({
  Type: z.literal("Wait"),
  Seconds: z.int().min(0).max(99_999_999).optional(),
  SecondsPath: path.optional(),
  Timestamp: z.iso.datetime({ offset: true }).optional(),
  TimestampPath: path.optional(),
  ...comment,
  ...inputOutput,
  ...next,
});
const SucceedState = z.strictObject({ Type: z.literal("Succeed"), ...comment, ...inputOutput });
const FailState = z.strictObject({
  Type: z.literal("Fail"),
  Error: z.string().optional(),
  ErrorPath: z.string().optional(),
  Cause: z.string().optional(),
  CausePath: z.string().optional(),
  ...comment,
});
const ParallelState = z.strictObject({
  Type: z.literal("Parallel"),
  get Branches() {
    return z.array(StateMachineBody).min(1);
  },
  ...comment,
  ...inputOutput,
  ...next,
  ...results,
  ...failures,
});
const MapState = z.strictObject({
  Type: z.literal("Map"),
  ItemsPath: path.optional(),
  ItemSelector: template.optional(),
  get ItemProcessor() {
    return ItemProcessor.optional();
  },
  get Iterator() {
    return StateMachineBody.optional();
  },
  MaxConcurrency: z.int().min(0).optional(),
  MaxConcurrencyPath: path.optional(),
  ...comment,
  ...inputOutput,
  ...next,
  ...results,
  ...failures,
});

const State: z.ZodType<State> = z.discriminatedUnion("Type", [
  TaskState,
  PassState,
  ChoiceState,
  WaitState,
  SucceedState,
  FailState,
  ParallelState,
  MapState,
]) as never;

const body = {
  StartAt: z.string(),
  States: z.record(z.string().min(1).max(80), State),
  Comment: z.string().optional(),
};
const StateMachineBody: z.ZodType<StateMachineBody> = z.strictObject(body) as never;
const ItemProcessor: z.ZodType<StateMachineBody> = z.strictObject({
  ...body,
  ProcessorConfig: z.strictObject({ Mode: z.literal("INLINE") }).optional(),
}) as never;
const StateMachine = z.strictObject({
  ...body,
  Version: z.literal("1.0").optional(),
  TimeoutSeconds: seconds.optional(),
  QueryLanguage: z.literal("JSONPath").optional(),
});

export type TaskState = z.infer<typeof TaskState>;
export type PassState = z.infer<typeof PassState>;
export type ChoiceState = z.infer<typeof ChoiceState>;
export type WaitState = z.infer<typeof WaitState>;
export type SucceedState = z.infer<typeof SucceedState>;
export type FailState = z.infer<typeof FailState>;
type Recovering = z.infer<z.ZodObject<typeof failures>>;
type Composite = Omit<z.infer<typeof TaskState>, "Type" | "Resource"> & Recovering;
export type ParallelState = Composite & {
  readonly Type: "Parallel";
  readonly Branches: readonly StateMachineBody[];
};
export type MapState = Composite & {
  readonly Type: "Map";
  readonly ItemsPath?: string;
  readonly ItemSelector?: Json;
  readonly ItemProcessor?: StateMachineBody;
  readonly Iterator?: StateMachineBody;
  readonly MaxConcurrency?: number;
  readonly MaxConcurrencyPath?: string;
};
export type State =
  | TaskState
  | PassState
  | ChoiceState
  | WaitState
  | SucceedState
  | FailState
  | ParallelState
  | MapState;
export type StateMachineBody = {
  readonly StartAt: string;
  readonly States: Readonly<Record<string, State>>;
};
export type StateMachine = StateMachineBody & { readonly TimeoutSeconds?: number };

/** Throws InvalidDefinition with every problem found. `taskProblem` judges resources and their parameters. */
export function parseStateMachine(
  text: string,
  taskProblem: (state: TaskState) => string | undefined,
): StateMachine {
  let definition: Json;
  try {
    definition = parseJson(text);
  } catch {
    throw invalid(["The definition is not JSON"]);
  }
  const parsed = StateMachine.safeParse(definition);
  if (!parsed.success) {
    throw invalid(parsed.error.issues.map((issue) => `${issue.path.join("/")}: ${issue.message}`));
  }
  const machine = parsed.data as StateMachine;
  const names = new Set<string>();
  const problems = bodyProblems(machine, "", names, taskProblem);
  if (problems.length > 0) throw invalid(problems);
  return machine;
}

function invalid(problems: readonly string[]): AwsError {
  const shown = problems.slice(0, 10).join("; ");
  return new AwsError("InvalidDefinition", `Invalid State Machine Definition: ${shown}`);
}

function bodyProblems(
  machine: StateMachineBody,
  at: string,
  names: Set<string>,
  taskProblem: (state: TaskState) => string | undefined,
): string[] {
  const problems: string[] = [];
  const exists = (name: string) => Object.hasOwn(machine.States, name);
  if (!exists(machine.StartAt)) problems.push(`${at}/StartAt: no state ${machine.StartAt}`);
  const reached = new Set([machine.StartAt]);
  for (const [name, state] of Object.entries(machine.States)) {
    const where = `${at}/${name}`;
    if (names.has(name)) problems.push(`${where}: the name is used twice in the machine`);
    names.add(name);
    for (const target of targetsOf(state)) {
      reached.add(target);
      if (!exists(target)) problems.push(`${where}: no state ${target} to go to`);
    }
    problems.push(...stateProblems(state, taskProblem).map((problem) => `${where}: ${problem}`));
    for (const inner of innerOf(state)) {
      problems.push(...bodyProblems(inner, where, names, taskProblem));
    }
  }
  for (const name of Object.keys(machine.States)) {
    if (!reached.has(name)) problems.push(`${at}/${name}: cannot be reached`);
  }
  return problems;
}

export function innerOf(state: State): readonly StateMachineBody[] {
  if (state.Type === "Parallel") return state.Branches;
  if (state.Type !== "Map") return [];
  return [state.ItemProcessor ?? state.Iterator].filter((inner) => inner !== undefined);
}

function targetsOf(state: State): string[] {
  const targets: string[] = [];
  if ("Next" in state && state.Next !== undefined) targets.push(state.Next);
  if ("Catch" in state) targets.push(...(state.Catch ?? []).map((catcher) => catcher.Next));
  if (state.Type === "Choice") {
    if (state.Default !== undefined) targets.push(state.Default);
    for (const { Next } of state.Choices) if (typeof Next === "string") targets.push(Next);
  }
  return targets;
}

function stateProblems(
  state: State,
  taskProblem: (state: TaskState) => string | undefined,
): string[] {
  const problems: string[] = [];
  if (state.Type !== "Choice" && state.Type !== "Succeed" && state.Type !== "Fail") {
    if ((state.Next !== undefined) === (state.End === true)) {
      problems.push("exactly one of Next and End is needed");
    }
  }
  if ("Retry" in state || "Catch" in state) {
    for (const list of [state.Retry ?? [], state.Catch ?? []])
      problems.push(...orderProblems(list));
  }
  switch (state.Type) {
    case "Task": {
      const problem = taskProblem(state);
      if (problem !== undefined) problems.push(problem);
      break;
    }
    case "Wait": {
      const given = [state.Seconds, state.SecondsPath, state.Timestamp, state.TimestampPath];
      if (given.filter((value) => value !== undefined).length !== 1) {
        problems.push("exactly one of Seconds, SecondsPath, Timestamp, TimestampPath is needed");
      }
      break;
    }
    case "Map":
      if (innerOf(state).length !== 1) problems.push("ItemProcessor is needed");
      if (state.Parameters !== undefined && state.ItemSelector !== undefined) {
        problems.push("Parameters and ItemSelector exclude each other");
      }
      break;
    case "Choice":
      for (const rule of state.Choices) {
        if (typeof rule["Next"] !== "string") problems.push("a rule without Next");
        problems.push(...ruleProblems(rule));
      }
      break;
    default:
  }
  return problems;
}

function orderProblems(list: readonly { readonly ErrorEquals: readonly string[] }[]): string[] {
  return list.flatMap(({ ErrorEquals }, index) =>
    ErrorEquals.includes("States.ALL") && (ErrorEquals.length > 1 || index < list.length - 1)
      ? ["States.ALL must stand alone and last"]
      : [],
  );
}

const comparisons =
  /^(String|Numeric|Timestamp)(Equals|LessThan|GreaterThan|LessThanEquals|GreaterThanEquals)(Path)?$|^BooleanEquals(Path)?$|^StringMatches$|^Is(Null|Present|Numeric|String|Boolean|Timestamp)$/;

function ruleProblems(rule: JsonObject): string[] {
  const operators = Object.keys(rule).filter((key) => key !== "Next" && key !== "Comment");
  const [first = "", ...others] = operators.filter((key) => key !== "Variable");
  if (first === "" || others.length > 0) return ["a rule needs exactly one comparison"];
  const operand = rule[first];
  if (first === "Not") return isJsonObject(operand) ? ruleProblems(operand) : ["Not needs a rule"];
  if (first === "And" || first === "Or") {
    return Array.isArray(operand) && operand.length > 0 && operand.every(isJsonObject)
      ? operand.flatMap(ruleProblems)
      : [`${first} needs rules`];
  }
  if (!comparisons.test(first)) return [`the comparison ${first} is not supported`];
  const variable = rule["Variable"];
  if (typeof variable !== "string") return ["Variable is needed"];
  const problem = pathProblem(variable);
  return problem === undefined ? [] : [problem];
}

function pathProblem(text: string): string | undefined {
  try {
    parsePath(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
