import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import validate from "asl-validator";
import { describe, expect, test } from "vitest";
import { functionTable } from "../function-table.ts";

const folder = import.meta.dirname;
const files = (await readdir(folder)).filter((name) => name.endsWith(".asl.json"));

describe.each(files)("%s", (name) => {
  const read = async (): Promise<string> => readFile(join(folder, name), "utf8");

  test("is valid Amazon States Language", async () => {
    const { isValid, errorsText } = validate(JSON.parse(await read()));
    expect(errorsText()).toBe("");
    expect(isValid).toBe(true);
  });

  test("names functions of the table only", async () => {
    const known: readonly string[] = functionTable.map((entry) => entry.name);
    for (const [, placeholder] of (await read()).matchAll(/\$\{(\w+)\}/g)) {
      expect(known).toContain(placeholder);
    }
  });

  test("every mover's task has a heartbeat and a time limit, retries, and ends in a release or notice when it fails", async () => {
    const states: [string, Record<string, unknown>][] = [];
    const collect = (machine: { States: Record<string, Record<string, unknown>> }): void => {
      for (const [key, state] of Object.entries(machine.States)) {
        states.push([key, state]);
        const inner = state["ItemProcessor"];
        if (inner !== undefined) collect(inner as typeof machine);
      }
    };
    collect(JSON.parse(await read()));
    for (const [key, state] of states) {
      if (!String(state["Resource"]).includes("waitForTaskToken")) continue;
      expect(state["HeartbeatSeconds"], key).toBeGreaterThan(0);
      expect(state["TimeoutSeconds"], key).toBeGreaterThan(0);
      expect(JSON.stringify(state["Retry"]), key).toContain("States.HeartbeatTimeout");
    }
  });
});
