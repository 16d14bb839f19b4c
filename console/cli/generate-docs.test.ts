import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { commandTable } from "./command-table.ts";
import { docsPath, generateDocs } from "./generate-docs.ts";

test("docs/cli.md is what the table of commands says (run console/cli/generate-docs.ts)", () => {
  expect(readFileSync(docsPath, "utf8")).toBe(generateDocs());
});

test("every command has its section", () => {
  for (const { path } of commandTable) expect(generateDocs()).toContain(`\n## ${path}\n`);
});
