import { createHash } from "node:crypto";
import type { Json } from "../json.ts";
import { isJsonObject, parseJson, sameJson } from "../json.ts";
import { get, type PathScope, parsePath } from "./json-path.ts";
import { StateError } from "./state-error.ts";

/** `States.*` functions. `random` is seeded by the state's place in the execution, so that a replay draws the same. */
export type Expression =
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] }
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "literal"; readonly value: Json };

/** Throws Error on what is not understood. */
export function parseExpression(text: string): Expression {
  let at = 0;
  const skip = () => {
    while (/\s/.test(text.charAt(at))) at += 1;
  };
  const fail = (): never => {
    throw new Error(`The expression ${text} is not understood at ${text.slice(at) || "its end"}`);
  };
  function parseArgument(): Expression {
    skip();
    const rest = text.slice(at);
    const string = /^'((?:[^'\\]|\\.)*)'/.exec(rest);
    if (string !== null) {
      at += string[0].length;
      return { kind: "literal", value: (string[1] ?? "").replace(/\\(['\\{}])/g, "$1") };
    }
    const word = /^(-?\d+(?:\.\d+)?|true|false|null)(?=[\s,)]|$)/.exec(rest);
    if (word !== null) {
      at += word[0].length;
      return { kind: "literal", value: parseJson(word[0]) };
    }
    if (rest.startsWith("$")) {
      // A path ends at the first comma or parenthesis outside of brackets and quotes.
      const path = /^\$(?:\[(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\]'"]*)\]|[^,()[\]\s])*/.exec(
        rest,
      );
      const found = path?.[0] ?? fail();
      parsePath(found);
      at += found.length;
      return { kind: "path", path: found };
    }
    return parseCall();
  }
  function parseCall(): Expression {
    const name = /^States\.[A-Za-z0-9]+(?=\s*\()/.exec(text.slice(at))?.[0] ?? fail();
    if (!Object.hasOwn(functions, name)) throw new Error(`${name} is not supported`);
    at += name.length;
    skip();
    at += 1;
    const args: Expression[] = [];
    skip();
    while (text.charAt(at) !== ")") {
      args.push(parseArgument());
      skip();
      if (text.charAt(at) === ",") at += 1;
      else if (text.charAt(at) !== ")") fail();
    }
    at += 1;
    return { kind: "call", name, args };
  }
  skip();
  const expression = text.startsWith("$") ? parseArgument() : parseCall();
  skip();
  if (at !== text.length) fail();
  return expression;
}

export function evaluate(expression: Expression, scope: PathScope, random: () => Buffer): Json {
  switch (expression.kind) {
    case "literal":
      return expression.value;
    case "path":
      return get(expression.path, scope);
    case "call": {
      const args = expression.args.map((argument) => evaluate(argument, scope, random));
      const run = functions[expression.name];
      const literal = expression.args[0];
      try {
        if (run === undefined) throw new Error("no such function");
        return run(args, random, literal?.kind === "literal");
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        throw new StateError("States.IntrinsicFailure", `${expression.name}: ${why}`);
      }
    }
    default:
      return expression satisfies never;
  }
}

const string = (value: Json | undefined): string => {
  if (typeof value !== "string") throw new Error("a string is needed");
  return value;
};
const number = (value: Json | undefined): number => {
  if (typeof value !== "number") throw new Error("a number is needed");
  return value;
};
const array = (value: Json | undefined): readonly Json[] => {
  if (!Array.isArray(value)) throw new Error("an array is needed");
  return value;
};

const hashes: Readonly<Record<string, string>> = {
  MD5: "md5",
  "SHA-1": "sha1",
  "SHA-256": "sha256",
  "SHA-384": "sha384",
  "SHA-512": "sha512",
};

const functions: Readonly<
  Record<string, (args: readonly Json[], random: () => Buffer, literal: boolean) => Json>
> = {
  "States.Format": ([template, ...values]) => {
    let used = 0;
    const text = string(template).replaceAll("{}", () => {
      const value = values[used];
      if (value === undefined) throw new Error("fewer values than {}");
      used += 1;
      return typeof value === "string" ? value : JSON.stringify(value);
    });
    if (used !== values.length) throw new Error("more values than {}");
    return text;
  },
  "States.StringToJson": ([text]) => parseJson(string(text)),
  "States.JsonToString": ([value]) => JSON.stringify(value ?? null),
  "States.Array": (values) => values,
  "States.ArrayLength": ([items]) => array(items).length,
  "States.ArrayContains": ([items, wanted]) =>
    array(items).some((item) => sameJson(item, wanted ?? null)),
  "States.ArrayGetItem": ([items, index]) => {
    const item = array(items)[number(index)];
    if (item === undefined) throw new Error("the index is outside of the array");
    return item;
  },
  "States.ArrayPartition": ([items, size]) => {
    const length = number(size);
    if (!Number.isInteger(length) || length < 1) throw new Error("the size is below 1");
    const all = array(items);
    return Array.from({ length: Math.ceil(all.length / length) }, (_, i) =>
      all.slice(i * length, (i + 1) * length),
    );
  },
  "States.ArrayRange": ([first, last, by]) => {
    const [from, to, step] = [number(first), number(last), number(by)];
    const length = Math.floor((to - from) / step) + 1;
    if (step === 0 || length > 1000) throw new Error("at most 1000 items");
    return Array.from({ length: Math.max(0, length) }, (_, i) => from + i * step);
  },
  "States.ArrayUnique": ([items]) =>
    array(items).filter((item, i, all) => all.findIndex((other) => sameJson(other, item)) === i),
  "States.Base64Encode": ([text]) => Buffer.from(string(text)).toString("base64"),
  "States.Base64Decode": ([text]) => Buffer.from(string(text), "base64").toString("utf8"),
  "States.Hash": ([value, algorithm]) => {
    const hash = hashes[string(algorithm)];
    if (hash === undefined) throw new Error(`the algorithm ${String(algorithm)} is unknown`);
    const text = typeof value === "string" ? value : JSON.stringify(value ?? null);
    return createHash(hash).update(text).digest("hex");
  },
  "States.JsonMerge": ([left, right, deep]) => {
    if (!isJsonObject(left) || !isJsonObject(right)) throw new Error("objects are needed");
    if (deep !== false) throw new Error("only the shallow merge (false) exists");
    return { ...left, ...right };
  },
  "States.MathAdd": ([left, right]) => number(left) + number(right),
  "States.MathRandom": ([from, to], random) => {
    const span = number(to) - number(from);
    return number(from) + (random().readUInt32BE(0) % Math.max(1, span));
  },
  "States.StringSplit": ([text, splitters]) => {
    const set = new Set(string(splitters));
    const parts: string[] = [""];
    for (const character of string(text)) {
      if (set.has(character)) parts.push("");
      else parts.push(`${parts.pop() ?? ""}${character}`);
    }
    return parts.filter((part) => part !== "");
  },
  "States.UUID": (_, random) => {
    const bytes = random().subarray(0, 16);
    bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x40, 6);
    bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
    const hex = bytes.toString("hex");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  },
};
