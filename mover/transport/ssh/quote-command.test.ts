import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { quoteCommand, quoteWord } from "./quote-command.ts";

/** What the real shell makes of the line: each word, ended by NUL. */
function throughShell(line: string): Buffer {
  return execFileSync("/bin/sh", ["-c", line], { stdio: ["ignore", "pipe", "ignore"] });
}

const printWords = ["sh", "-c", 'for word in "$@"; do printf "%s\\0" "$word"; done', "sh"] as const;

const nasty = [
  "",
  " ",
  "'",
  "''",
  "'\\''",
  '"',
  "\\",
  "\n",
  "a\nb\n",
  "$HOME",
  "$(id)",
  "`id`",
  "*",
  "~",
  "!!",
  "-n",
  "--",
  "a;b",
  "a&b",
  "a|b",
  ">x",
  "#x",
  "\t\r\u0001\u007f",
  "ü€😀",
  "{a,b}",
  "a=b",
];

test("words reach a program as they are", () => {
  expect(throughShell(quoteCommand([...printWords, ...nasty])).toString()).toBe(
    nasty.map((word) => `${word}\0`).join(""),
  );
});

test("any bytes but NUL reach a program as they are", () => {
  const characters = fc.oneof(
    fc.constantFrom("'", "\\", '"', "$", "`", "\n", " ", "!", "*"),
    fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
    fc.string({ unit: "binary", maxLength: 1 }),
  );
  const word = fc
    .array(characters, { maxLength: 30 })
    .map((list) => list.join("").replaceAll("\0", ""));
  const property = fc.property(fc.array(word, { maxLength: 40 }), word, (words, value) => {
    const line = quoteCommand([...printWords, ...words], { VALUE: value });
    expect(throughShell(line).toString("utf8")).toBe(words.map((one) => `${one}\0`).join(""));
    const shown = throughShell(quoteCommand(["sh", "-c", 'printf %s "$VALUE"'], { VALUE: value }));
    expect(shown.toString("utf8")).toBe(value);
  });
  fc.assert(property, { numRuns: 60 });
});

test("programs run in the C locale", () => {
  expect(throughShell(quoteCommand(["sh", "-c", "printf %s $LC_ALL"])).toString()).toBe("C");
});

test("what no argument can hold is refused", () => {
  for (const word of ["a\0b", "\ud800"]) {
    expect(() => quoteWord(word)).toThrow(expect.objectContaining({ code: "input.invalid" }));
  }
  const invalid = expect.objectContaining({ code: "input.invalid" });
  expect(() => quoteCommand(["true", "x".repeat(200_000)])).toThrow(invalid);
  expect(() => quoteCommand(["A=b"])).toThrow(invalid);
  expect(() => quoteCommand([""])).toThrow(invalid);
  expect(() => quoteCommand(["-i"])).toThrow(invalid);
  for (const name of ["a b", "x;id", "", "1a", "A=B"]) {
    expect(() => quoteCommand(["true"], { [name]: "v" })).toThrow(invalid);
  }
});
