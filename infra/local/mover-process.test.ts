import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startMover } from "./mover-process.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-mover-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A mover that notes its starts and how it was stopped. */
function fakeMover(name: string) {
  const notes = join(folder, `${name}.notes`);
  const entry = join(folder, `${name}.mjs`);
  writeFileSync(
    entry,
    `import { appendFileSync } from "node:fs";
     const note = (text) => appendFileSync(${JSON.stringify(notes)}, text + "\\n");
     process.on("SIGTERM", () => { note("drained"); process.exit(0); });
     setInterval(() => undefined, 1000);
     note("started " + process.pid);`,
  );
  const lines = () => (existsSync(notes) ? readFileSync(notes, "utf8").trim().split("\n") : []);
  return { entry, lines };
}

const pidIn = (line: string | undefined) => Number(line?.split(" ")[1]);

test("a mover that dies is started again, and stopping lets it drain", async () => {
  const { entry, lines } = fakeMover("dies");
  const logFile = join(folder, "dies.log");
  const mover = startMover({
    entry,
    environment: process.env,
    logFile,
    logger: silentLogger,
    drainMs: 10_000,
  });
  await expect.poll(() => lines().length, { timeout: 10_000 }).toBe(1);
  process.kill(pidIn(lines()[0]), "SIGKILL");
  await expect.poll(() => lines().length, { timeout: 10_000 }).toBe(2);
  await mover.stop();
  expect(lines().at(-1)).toBe("drained");
});

test("a mover whose stack was killed drains by itself", async () => {
  const { entry, lines } = fakeMover("orphan");
  const parent = join(folder, "parent.mjs");
  const module = JSON.stringify(join(import.meta.dirname, "mover-process.ts"));
  writeFileSync(
    parent,
    `const { startMover } = await import(${module});
     const logger = { info() {}, error() {} };
     startMover({ entry: ${JSON.stringify(entry)}, environment: process.env,
       logFile: ${JSON.stringify(join(folder, "orphan.log"))}, logger, drainMs: 1000 });`,
  );
  const stack = spawn(process.execPath, [parent], { stdio: "inherit" });
  await expect.poll(() => lines().length, { timeout: 10_000 }).toBe(1);
  const exit = once(stack, "exit");
  stack.kill("SIGKILL");
  await exit;
  await expect.poll(() => lines().at(-1), { timeout: 10_000 }).toBe("drained");
});
