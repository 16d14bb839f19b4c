import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { createPrompt, type TerminalInput } from "./prompt.ts";
import { createBufferedOutput } from "./testing.ts";

function createTerminal() {
  const events = new EventEmitter();
  const modes: boolean[] = [];
  const input: TerminalInput & EventEmitter = Object.assign(events, {
    isTTY: true,
    setRawMode: (enabled: boolean) => modes.push(enabled),
    resume: () => undefined,
    pause: () => undefined,
  });
  return { input, modes, type: (text: string) => events.emit("data", Buffer.from(text)) };
}

test("a secret is read without echo, with backspace, and the terminal is given back", async () => {
  const { input, modes, type } = createTerminal();
  const output = createBufferedOutput(true);
  const answer = createPrompt(input, output, { allowed: true }).secret("Passphrase", "a file");
  type("hunterx\u007f");
  type("2 ü\r");
  expect(await answer).toBe("hunter2 ü");
  expect(output.text()).toBe("Passphrase: \n");
  expect(modes).toEqual([true, false]);
});

test("Ctrl-C at the question is cancelled, and the terminal is given back", async () => {
  const { input, modes, type } = createTerminal();
  const prompt = createPrompt(input, createBufferedOutput(true), { allowed: true });
  const answer = prompt.secret("Passphrase", "a file");
  type("abc\u0003");
  await expect(answer).rejects.toMatchObject({ code: "cancelled" });
  expect(modes.at(-1)).toBe(false);
});

test.each([
  ["y", true],
  ["YES", true],
  ["", false],
  ["n", false],
  ["yikes", false],
])("confirming with %j is %s", async (typed, expected) => {
  const { input, type } = createTerminal();
  const output = createBufferedOutput(true);
  const answer = createPrompt(input, output, { allowed: true }).confirm("Sure?");
  type(`${typed}\r`);
  expect(await answer).toBe(expected);
});

test("where nobody can be asked it fails at once and names the option, or takes no for an answer", async () => {
  const { input } = createTerminal();
  for (const prompt of [
    createPrompt(input, createBufferedOutput(true), { allowed: false }),
    createPrompt({ ...input, isTTY: false }, createBufferedOutput(true), { allowed: true }),
  ]) {
    await expect(prompt.secret("Passphrase", "--passphrase-file")).rejects.toThrow(
      "--passphrase-file",
    );
    expect(await prompt.confirm("Sure?")).toBe(false);
  }
});
