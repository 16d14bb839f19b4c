import { ErrorDocument } from "@holdfast/shared/contracts/events";
import { Failure, failureCodes, failureKind } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import type { CommandDefinition } from "./command.ts";
import { commandTable } from "./command-table.ts";
import { exitCodes } from "./exit-codes.ts";
import { runProgram } from "./program.ts";
import { printError } from "./report.ts";
import { createBufferedOutput, runCli } from "./testing.ts";

test.each([
  ["an unknown command", ["backpu", "web1"]],
  ["an unknown option", ["vm", "list", "--colour"]],
  ["a missing argument", ["backup"]],
  ["one argument too many", ["vm", "show", "a", "b"]],
  ["a value outside the choices", ["backup", "web1", "--quiesce", "maybe"]],
  ["a missing mandatory option", ["image", "points"]],
  ["a group without its command", ["vm"]],
  ["an unknown help topic", ["help", "weather"]],
  ["a timeout that is no time", ["vm", "list", "--timeout", "soon"]],
])("%s is exit code 2", async (_, commandLine) => {
  const { code, stdout, stderr } = await runCli(commandLine);
  expect(code).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).not.toBe("");
});

test("a usage error under --json is one JSON line of the published schema", async () => {
  const { code, stderr } = await runCli(["backup", "--json"]);
  expect(code).toBe(2);
  expect(ErrorDocument.parse(JSON.parse(stderr)).id).toBe("HF-INPUT-INVALID");
});

test.each(failureCodes)("failure %s has advice and its exit code, in both forms", (failureCode) => {
  const failure = new Failure(failureCode, {
    message: "it broke",
    cause: new Error("the disk said no"),
  });
  const people = createBufferedOutput();
  const machine = createBufferedOutput();
  expect(printError(failure, people, { json: false })).toBe(failureKind(failureCode).exitCode);
  expect(printError(failure, machine, { json: true })).toBe(failureKind(failureCode).exitCode);
  expect(people.text()).toContain("Cause: the disk said no");
  expect(people.text()).toContain(`Next:  ${failureKind(failureCode).advice}`);
  const document = ErrorDocument.parse(JSON.parse(machine.text()));
  expect(document.advice.length).toBeGreaterThan(10);
  expect(document.causes).toEqual(["the disk said no"]);
});

test("an error that nobody foresaw is a failure, not a stack trace", async () => {
  const broken: CommandDefinition = {
    path: "break",
    summary: "break",
    examples: [],
    run: () => Promise.reject(new TypeError("x is undefined")),
  };
  const stderr = createBufferedOutput();
  const code = await runProgram(["break"], {
    stdout: createBufferedOutput(),
    stderr,
    version: "0",
    commands: [broken],
    createContext: () => {
      throw new TypeError("x is undefined");
    },
  });
  expect(code).toBe(1);
  expect(stderr.text()).toMatch(/^HF-INTERNAL: x is undefined\n {2}Next: {2}This is a defect/);
});

test("global options work before and after the command's name", async () => {
  const seen: unknown[] = [];
  const spy: CommandDefinition = {
    path: "spy on",
    summary: "spy",
    examples: [],
    run: async ({ settings }) => {
      seen.push(settings);
      return 0;
    },
  };
  for (const commandLine of [
    ["--json", "--no-wait", "--timeout", "2m", "spy", "on"],
    ["spy", "on", "--json", "--no-wait", "--timeout", "2m"],
  ]) {
    await runProgram(commandLine, {
      stdout: createBufferedOutput(),
      stderr: createBufferedOutput(),
      version: "0",
      commands: [spy],
      createContext: (settings) => ({ settings }) as never,
    });
  }
  expect(seen[0]).toEqual(seen[1]);
  expect(seen[0]).toMatchObject({ json: true, wait: false, input: true, timeoutMs: 120_000 });
});

test.each(commandTable.map((definition) => [definition.path, definition] as const))(
  "help of `%s` teaches: its examples are shown and parse",
  async (path, definition) => {
    const help = await runCli([...path.split(" "), "--help"]);
    expect(help.code).toBe(0);
    expect(definition.examples.length).toBeGreaterThan(0);
    for (const { command } of definition.examples) {
      expect(help.stdout).toContain(command);
      expect(await parses(command)).toBe(0);
    }
  },
);

test("help shows the topics, and each topic prints", async () => {
  expect((await runCli(["--help"])).stdout).toContain("holdfast help exit-codes");
  expect((await runCli(["help"])).stdout).toContain("Commands:");
  expect((await runCli(["help", "provider", "add", "libvirt"])).stdout).toContain("--host-key");
  const { stdout } = await runCli(["help", "exit-codes"]);
  for (const { code } of Object.values(exitCodes))
    expect(stdout).toMatch(new RegExp(`^ *${code}  `, "m"));
  expect((await runCli(["help", "environment"])).stdout).toContain("HOLDFAST_TOKEN_FILE");
  expect((await runCli(["help", "errors"])).stdout).toContain("HF-STORAGE-NO-SPACE");
  expect((await runCli(["--version"])).stdout).toBe("0.0.0\n");
});

/** Parses the part of an example from `holdfast` to a pipe or redirection, without running the command. */
async function parses(example: string): Promise<number> {
  const [ours = ""] = (example.split(/(?:^|\s)holdfast /)[1] ?? "").split(/ [|<>] | && /);
  const words = [...ours.matchAll(/'([^']*)'|(\S+)/g)].map(
    ([, quoted, bare]) => quoted ?? bare ?? "",
  );
  return await runProgram(words, {
    stdout: createBufferedOutput(),
    stderr: createBufferedOutput(),
    version: "0",
    commands: commandTable.map((definition) => ({ ...definition, run: async () => 0 as const })),
    createContext: () => ({}) as never,
  });
}
