import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test, vi } from "vitest";

/** The real command with the real mover as its child. */
const command = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));

vi.setConfig({ testTimeout: 240_000 });

test("a command follows its limits file, tells of what it cannot use, and ends all the same", async () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-limits-file-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const repository = join(folder, "repository");
  const file = join(folder, "limits.json");
  const disk = join(folder, "disk.raw");
  const env = { PATH: process.env["PATH"], HOME: folder, HOLDFAST_PASSPHRASE: "correct horse" };
  const holdfast = (...words: readonly string[]) =>
    spawnSync(process.execPath, [command, ...words], { encoding: "utf8", env, input: "" });
  expect(holdfast("repository", "init", repository).status).toBe(0);
  writeFileSync(disk, Buffer.alloc(4096, 1));
  writeFileSync(file, '{ "upload": "100M" }');
  const limited = ["--repository", repository, "--json", "--limits-file", file];
  // It ends, although nobody ended the following of the file.
  const backup = holdfast("image", "backup", disk, ...limited);
  expect(backup).toMatchObject({ status: 0, stderr: "" });
  const last = JSON.parse(backup.stdout.trimEnd().split("\n").at(-1) ?? "");
  const { pointId } = last.result.point;

  const serving = spawn(process.execPath, [command, "serve", pointId, ...limited], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void serving.kill("SIGKILL"));
  const ended = new Promise((resolve) => serving.once("close", resolve));
  const lines = createInterface({ input: serving.stdout })[Symbol.asyncIterator]();
  const next = async () => JSON.parse(String((await lines.next()).value));
  expect(await next()).toMatchObject({ type: "serving" });
  writeFileSync(file, '{ "uplod": 1 }');
  expect(await next()).toMatchObject({
    type: "warning",
    message: expect.stringMatching(/limits stay as they were: limits file .*limits\.json: .*uplod/),
  });
  serving.kill("SIGINT");
  expect(await ended).toBe(0);
});
