import type { Json, JsonObject } from "../json.ts";
import { isJsonObject } from "../json.ts";
import { StateError } from "./state-error.ts";

/**
 * JSONPath as state machines need it: `$`, `$$` (context object), members by dot or bracket, indexes, slices,
 * wildcards. Filters, scripts and recursive descent are refused by name.
 */
type Step =
  | { readonly kind: "member"; readonly name: string }
  | { readonly kind: "index"; readonly index: number }
  | { readonly kind: "slice"; readonly from: number | undefined; readonly to: number | undefined }
  | { readonly kind: "wildcard" };

export type ParsedPath = { readonly context: boolean; readonly steps: readonly Step[] };

const stepPattern =
  /\.([\p{L}_][\p{L}\p{N}_-]*)|\.(\*)|\[(\*)\]|\[(-?\d+)\]|\[(-?\d*):(-?\d*)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]/uy;

/** Throws Error on anything that is not supported. */
export function parsePath(text: string): ParsedPath {
  if (!text.startsWith("$")) throw new Error(`The path ${text} does not start with $`);
  if (text.includes("..")) throw new Error(`Recursive descent (..) in ${text} is not supported`);
  if (/\[\s*[?(]/.test(text)) throw new Error(`Filters in the path ${text} are not supported`);
  const context = text.startsWith("$$");
  const steps: Step[] = [];
  stepPattern.lastIndex = context ? 2 : 1;
  while (stepPattern.lastIndex < text.length) {
    const at = stepPattern.lastIndex;
    const match = stepPattern.exec(text);
    if (match === null) throw new Error(`The path ${text} is not understood at ${text.slice(at)}`);
    const [, dotted, dotStar, star, index, from, to, single, double] = match;
    const quoted = single ?? double;
    if (dotted !== undefined) steps.push({ kind: "member", name: dotted });
    else if (quoted !== undefined) {
      steps.push({ kind: "member", name: quoted.replace(/\\(.)/g, "$1") });
    } else if (index !== undefined) steps.push({ kind: "index", index: Number(index) });
    else if (dotStar !== undefined || star !== undefined) steps.push({ kind: "wildcard" });
    else steps.push({ kind: "slice", from: numberIn(from), to: numberIn(to) });
    if (stepPattern.lastIndex === 0) break;
  }
  return { context, steps };
}

const numberIn = (text: string | undefined) =>
  text === undefined || text === "" ? undefined : Number(text);

export type PathScope = { readonly input: Json; readonly context: Json };

/** Undefined when nothing is there; a path with wildcards or slices gives an array. */
export function lookUp(text: string, scope: PathScope): Json | undefined {
  const { context, steps } = parsePath(text);
  let found: readonly Json[] = [context ? scope.context : scope.input];
  let many = false;
  for (const step of steps) {
    found = found.flatMap((value) => children(value, step));
    many ||= step.kind === "wildcard" || step.kind === "slice";
  }
  return many ? found : found[0];
}

/** As `lookUp`, but a missing value is the error that Step Functions raises, which nothing in the workflow catches. */
export function get(text: string, scope: PathScope): Json {
  const value = lookUp(text, scope);
  if (value === undefined) {
    throw new StateError(
      "States.Runtime",
      `The JSONPath '${text}' could not be found in the input`,
    );
  }
  return value;
}

function children(value: Json, step: Step): readonly Json[] {
  switch (step.kind) {
    case "member":
      return isJsonObject(value) && Object.hasOwn(value, step.name)
        ? [value[step.name] ?? null]
        : [];
    case "index": {
      const item = Array.isArray(value) ? value.at(step.index) : undefined;
      return item === undefined ? [] : [item];
    }
    case "slice":
      return Array.isArray(value) ? value.slice(step.from, step.to) : [];
    case "wildcard":
      if (Array.isArray(value)) return value;
      return isJsonObject(value) ? Object.values(value) : [];
    default:
      return step satisfies never;
  }
}

/** Puts `result` at a reference path of `input`, making objects on the way. */
export function place(text: string, input: Json, result: Json): Json {
  const { context, steps } = parsePath(text);
  if (context) throw new StateError("States.ResultPathMatchFailure", "ResultPath in the context");
  return placeAt(input, steps, result);
}

function placeAt(input: Json, steps: readonly Step[], result: Json): Json {
  const [step, ...rest] = steps;
  if (step === undefined) return result;
  if (step.kind === "index" && Array.isArray(input) && step.index in input) {
    return input.map((item: Json, i) => (i === step.index ? placeAt(item, rest, result) : item));
  }
  if (step.kind === "member" && (isJsonObject(input) || input === null)) {
    const object: JsonObject = input ?? {};
    const inner = Object.hasOwn(object, step.name) ? (object[step.name] ?? null) : {};
    return { ...object, [step.name]: placeAt(inner, rest, result) };
  }
  throw new StateError(
    "States.ResultPathMatchFailure",
    "Unable to apply the ResultPath to the state's input",
  );
}
