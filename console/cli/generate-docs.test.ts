import { readFileSync } from "node:fs";
import { failureCodes, failureKind } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import { globalOptions } from "./command.ts";
import { commandTable } from "./command-table.ts";
import { docsPath, generateDocs } from "./generate-docs.ts";

test("docs/cli.md is what the table of commands says (run console/cli/generate-docs.ts)", () => {
  expect(readFileSync(docsPath, "utf8")).toBe(generateDocs());
});

test("every command has its section", () => {
  for (const { path } of commandTable) expect(generateDocs()).toContain(`\n## ${path}\n`);
});

test("advices name only commands and options that exist", () => {
  const known = (words: string): boolean =>
    commandTable.some(({ path }) => words === path || words.startsWith(`${path} `));
  const named = failureCodes.flatMap((code) => [
    ...failureKind(code).advice.matchAll(/`holdfast ([^`]*)`/g),
  ]);
  expect(named.length).toBeGreaterThan(5);
  expect(named.map(([, words = ""]) => words).filter((words) => !known(words))).toEqual([]);
  const options = new Set(
    [...globalOptions, ...commandTable.flatMap((command) => command.options ?? [])].map(
      ({ flags }) => flags.match(/--[a-z-]+/)?.[0],
    ),
  );
  const flags = named.flatMap(([, words = ""]) => words.match(/--[a-z-]+/g) ?? []);
  expect(flags.filter((flag) => !options.has(flag))).toEqual([]);
});
