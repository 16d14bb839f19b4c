import type { Json } from "../json.ts";
import { isJsonObject } from "../json.ts";
import { evaluate, parseExpression } from "./intrinsics.ts";
import type { PathScope } from "./json-path.ts";
import { StateError } from "./state-error.ts";

/** Fills Parameters, ItemSelector, ResultSelector: members whose name ends in `.$` are paths or intrinsic calls. */
export function fillTemplate(template: Json, scope: PathScope, random: () => Buffer): Json {
  if (Array.isArray(template)) return template.map((item) => fillTemplate(item, scope, random));
  if (!isJsonObject(template)) return template;
  const filled: Record<string, Json> = {};
  for (const [name, value] of Object.entries(template)) {
    if (!name.endsWith(".$")) {
      filled[name] = fillTemplate(value, scope, random);
      continue;
    }
    if (typeof value !== "string") {
      throw new StateError("States.Runtime", `The value of ${name} has to be a path`);
    }
    filled[name.slice(0, -2)] = evaluate(parseExpression(value), scope, random);
  }
  return filled;
}

/** Problems of a template, found before anything runs. */
export function checkTemplate(template: Json): string[] {
  if (Array.isArray(template)) return template.flatMap(checkTemplate);
  if (!isJsonObject(template)) return [];
  return Object.entries(template).flatMap(([name, value]) => {
    if (!name.endsWith(".$")) return checkTemplate(value);
    if (typeof value !== "string") return [`${name} needs a path or an intrinsic function`];
    try {
      parseExpression(value);
      return [];
    } catch (error) {
      return [error instanceof Error ? error.message : String(error)];
    }
  });
}
