import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTemporaryFolder } from "./testing.ts";

const launcher = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));

/** An older Node of this machine, when there is one outside the checkout. */
function findOldNode(): string | undefined {
  const candidates = ["/usr/bin/node", "/usr/local/bin/node"].filter((path) => existsSync(path));
  return candidates.find((path) => {
    const version = execFileSync(path, ["--version"], { encoding: "utf8" });
    const [major = 0, minor = 0] = version.slice(1).split(".").map(Number);
    return major < 24 && (major > 20 || (major === 20 && minor >= 19));
  });
}
const oldNode = findOldNode();

let folder: Awaited<ReturnType<typeof createTemporaryFolder>>;
beforeAll(async () => {
  folder = await createTemporaryFolder();
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

/** A checkout with another main.ts, and with or without the pinned Node. */
function makeCheckout(name: string, main: string, options: { readonly isPinned: boolean }): string {
  const cli = join(folder.path, name, "console", "cli");
  mkdirSync(join(cli, "bin"), { recursive: true });
  copyFileSync(launcher, join(cli, "bin", "holdfast.mjs"));
  writeFileSync(join(cli, "main.ts"), main);
  writeFileSync(join(cli, "package.json"), '{"type":"module"}');
  if (options.isPinned) {
    const bin = join(folder.path, name, "node_modules", "node", "bin");
    mkdirSync(bin, { recursive: true });
    symlinkSync(process.execPath, join(bin, "node"));
  }
  return join(cli, "bin", "holdfast.mjs");
}

test("the real command starts under this Node", () => {
  const run = spawnSync(process.execPath, [launcher, "--version"], { encoding: "utf8" });
  expect(run).toMatchObject({ status: 0, stderr: "" });
  expect(run.stdout).toMatch(/^\d+\.\d+\.\d+/);
});

test("under an older Node it finds the pinned one", (context) => {
  if (oldNode === undefined) return context.skip("no Node 20 or 22 on this machine");
  const run = spawnSync(oldNode, [launcher, "vm", "lits"], { encoding: "utf8" });
  expect(run.status).toBe(2);
  expect(run.stderr).toContain("HF-INPUT-INVALID: unknown command 'lits'");
  expect(run.stderr).not.toMatch(/warning/i);
});

test("without a Node that is new enough it says what to do", (context) => {
  if (oldNode === undefined) return context.skip("no Node 20 or 22 on this machine");
  const start = makeCheckout("bare", "", { isPinned: false });
  const run = spawnSync(oldNode, [start], { encoding: "utf8" });
  expect(run.status).toBe(1);
  expect(run.stderr).toMatch(/^HF-UNSUPPORTED: holdfast needs Node 24[\s\S]*npm ci/);
});

test("arguments and the exit code pass through, and SIGTERM ends the child", async (context) => {
  if (oldNode === undefined) return context.skip("no Node 20 or 22 on this machine");
  const echo = makeCheckout(
    "echo",
    "const words: string[] = process.argv.slice(2);\nprocess.stdout.write(words.join('|'));\nprocess.exitCode = 9;\n",
    { isPinned: true },
  );
  const run = spawnSync(oldNode, [echo, "a b", "--c", "$d"], { encoding: "utf8" });
  expect(run).toMatchObject({ status: 9, stdout: "a b|--c|$d" });

  const waiting = makeCheckout(
    "waiting",
    "process.on('SIGTERM', () => process.exit(7));\nsetInterval(() => undefined, 1000);\nprocess.stdout.write('up');\n",
    { isPinned: true },
  );
  const child = spawn(oldNode, [waiting], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([7, null]);
});
