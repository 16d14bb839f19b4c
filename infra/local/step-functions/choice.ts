import type { Json, JsonObject } from "../json.ts";
import { isJsonObject } from "../json.ts";
import { get, lookUp, type PathScope } from "./json-path.ts";
import { StateError } from "./state-error.ts";

/** Whether a Choice rule holds. Values of another type than the comparison's make it false, as in Step Functions. */
export function ruleHolds(rule: JsonObject, scope: PathScope): boolean {
  const [operator = ""] = Object.keys(rule).filter(
    (key) => key !== "Next" && key !== "Comment" && key !== "Variable",
  );
  const operand = rule[operator] ?? null;
  if (operator === "Not") return isJsonObject(operand) && !ruleHolds(operand, scope);
  if (operator === "And" || operator === "Or") {
    const rules = Array.isArray(operand) ? operand.filter(isJsonObject) : [];
    const holds = (inner: JsonObject) => ruleHolds(inner, scope);
    return operator === "And" ? rules.every(holds) : rules.some(holds);
  }
  const path = String(rule["Variable"]);
  const value = lookUp(path, scope);
  if (operator === "IsPresent") return (value !== undefined) === operand;
  if (value === undefined) {
    throw new StateError(
      "States.Runtime",
      `Invalid path '${path}': the choice state's condition path references an invalid value`,
    );
  }
  if (operator.startsWith("Is")) return isOfType(operator, value) === operand;
  if (operator === "StringMatches") return typeof value === "string" && matches(value, operand);
  const byPath = operator.endsWith("Path");
  const other = byPath ? get(String(operand), scope) : operand;
  return compare(byPath ? operator.slice(0, -4) : operator, value, other);
}

function isOfType(operator: string, value: Json): boolean {
  switch (operator) {
    case "IsNull":
      return value === null;
    case "IsNumeric":
      return typeof value === "number";
    case "IsString":
      return typeof value === "string";
    case "IsBoolean":
      return typeof value === "boolean";
    default:
      return timeOf(value) !== undefined;
  }
}

function matches(value: string, pattern: Json): boolean {
  if (typeof pattern !== "string") return false;
  const parts = pattern.match(/\\[\\*]|\*|[^\\*]+|\\/g) ?? [];
  const source = parts.map((part) => {
    if (part === "*") return ".*";
    const text = part === "\\*" ? "*" : part === "\\\\" ? "\\" : part;
    return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  return new RegExp(`^${source.join("")}$`, "s").test(value);
}

function compare(operator: string, left: Json, right: Json): boolean {
  const kind = /^(String|Numeric|Timestamp|Boolean)(.+)$/.exec(operator);
  const [, type = "", comparison = ""] = kind ?? [];
  const pair = comparable(type, left, right);
  if (pair === undefined) return false;
  const [a, b] = pair;
  switch (comparison) {
    case "Equals":
      return a === b;
    case "LessThan":
      return a < b;
    case "GreaterThan":
      return a > b;
    case "LessThanEquals":
      return a <= b;
    default:
      return a >= b;
  }
}

function comparable(type: string, left: Json, right: Json) {
  if (type === "String" && typeof left === "string" && typeof right === "string") {
    return [left, right] as const;
  }
  if (type === "Numeric" && typeof left === "number" && typeof right === "number") {
    return [left, right] as const;
  }
  if (type === "Boolean" && typeof left === "boolean" && typeof right === "boolean") {
    return [left, right] as const;
  }
  if (type !== "Timestamp") return undefined;
  const [a, b] = [timeOf(left), timeOf(right)];
  return a === undefined || b === undefined ? undefined : ([a, b] as const);
}

function timeOf(value: Json): number | undefined {
  if (typeof value !== "string") return undefined;
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(value)) return undefined;
  const time = Date.parse(value);
  return Number.isNaN(time) ? undefined : time;
}
