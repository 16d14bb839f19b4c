import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { runCli } from "../testing.ts";
import { newPassphrase } from "./local.ts";

const command = fileURLToPath(new URL("../bin/holdfast.mjs", import.meta.url));
let home = "";

// Each step starts processes and derives a key on purpose slowly; a busy machine needs its time.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "holdfast-up-"));
});
afterAll(() => {
  holdfast(["down"]);
  rmSync(home, { recursive: true, force: true });
});

const environment = (): NodeJS.ProcessEnv => ({ PATH: process.env["PATH"], HOME: home });

function holdfast(words: readonly string[], more: NodeJS.ProcessEnv = {}) {
  return spawnSync(process.execPath, [command, ...words], {
    encoding: "utf8",
    env: { ...environment(), ...more },
    input: "",
  });
}

test("up shows the recovery kit once, makes the repository and the profile; down stops it; up again keeps all", () => {
  const first = holdfast(["up", "--detach", "--json"]);
  expect(first.status).toBe(0);
  const block = JSON.parse(first.stdout);
  const state = join(home, ".local/share/holdfast");
  expect(block).toMatchObject({ state, repository: join(state, "repository"), profile: "local" });
  const passphrase = /Passphrase {3}(\S+)/.exec(first.stderr)?.[1] ?? "";
  expect(passphrase).toMatch(/^([0-9a-z]{5}-){5}[0-9a-z]{5}$/);
  expect(statSync(block.tokenFile).mode & 0o077).toBe(0);
  expect(statSync(state).mode & 0o077).toBe(0);

  expect(JSON.parse(holdfast(["status", "--json"]).stdout)).toMatchObject({
    repositories: 1,
    vms: 0,
    movers: [{ siteId: "local" }],
  });
  expect(holdfast(["repository", "list"]).stdout).toContain(
    `default\t${join(state, "repository")}`,
  );
  // The kit alone opens the repository.
  const points = ["image", "points", "--repository", join(state, "repository")];
  expect(holdfast(points, { HOLDFAST_PASSPHRASE: passphrase }).status).toBe(0);

  const again = holdfast(["up", "--detach", "--json"]);
  expect(JSON.parse(again.stdout)).toEqual(block);
  expect(again.stderr).not.toContain("Recovery kit");

  expect(holdfast(["down"]).status).toBe(0);
  expect(holdfast(["down"]).status).toBe(5);
  const without = holdfast(["status"]);
  expect(without.status).toBe(7);
  expect(without.stderr).toContain("holdfast up");

  const restarted = holdfast(["up", "--detach"]);
  expect(restarted.status).toBe(0);
  expect(restarted.stderr).not.toContain("Recovery kit");
  expect(holdfast(["repository", "list"]).stdout).toContain("default\t");
  expect(holdfast(["down"]).status).toBe(0);
});

test("up says when its mover does not start, and why", () => {
  const words = ["up", "--detach", "--state", join(home, "moverless"), "--profile", "moverless"];
  // The mover refuses this setting each time it is started.
  const run = holdfast(words, { HOLDFAST_PASSPHRASE: "given", TASKS_MAX: "none" });
  expect(run.status).toBe(3);
  expect(run.stderr).toContain("HF-MOVER-LOST");
  expect(run.stderr).toContain("TASKS_MAX");
  const status = JSON.parse(holdfast(["status", "--profile", "moverless", "--json"]).stdout);
  expect(status.movers).toEqual([]);
  expect(holdfast(["down", "--state", join(home, "moverless")]).status).toBe(0);
});

test("up in the foreground ends with Ctrl-C, exit code 0, and nothing runs on", async () => {
  const child = spawn(
    process.execPath,
    [command, "up", "--state", join(home, "front"), "--profile", "front"],
    {
      env: { ...environment(), HOLDFAST_PASSPHRASE: "given" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const errors: string[] = [];
  child.stderr.on("data", (data: Buffer) => errors.push(data.toString()));
  await once(child.stdout, "data");
  expect(holdfast(["status", "--profile", "front"]).status).toBe(0);
  child.kill("SIGINT");
  expect((await once(child, "exit"))[0]).toBe(0);
  expect(holdfast(["status", "--profile", "front"]).status).toBe(7);
  expect(errors.join("")).not.toContain("given");
  expect(errors.join("")).not.toContain("Recovery kit");
});

test("a repository that exists is used only if the given passphrase opens it", () => {
  const repository = join(home, "shared-repository");
  expect(
    holdfast(["repository", "init", repository], { HOLDFAST_PASSPHRASE: "right" }).status,
  ).toBe(0);
  const words = [
    "up",
    "--detach",
    "--state",
    join(home, "other"),
    "--profile",
    "other",
    "--repository",
    repository,
  ];
  expect(holdfast(words, { HOLDFAST_PASSPHRASE: "wrong" }).status).toBe(4);
  expect(holdfast(words, { HOLDFAST_PASSPHRASE: "right" }).status).toBe(0);
  expect(holdfast(["down", "--state", join(home, "other")]).status).toBe(0);
});

test("what keeps the stack from starting is told under its own code", async () => {
  const entry = join(home, "broken.ts");
  writeFileSync(
    entry,
    'process.stderr.write("HF-BUSY: Process 7 runs a local stack here\\n");\nprocess.exitCode = 6;\n',
  );
  const state = join(home, "broken");
  mkdirSync(state);
  writeFileSync(join(state, "default-repository"), "/somewhere\n");
  writeFileSync(join(state, "passphrase"), "p\n");
  const run = await runCli(["up", "--state", state], {
    environment: { HOME: home },
    localStackEntryPath: entry,
    clock: { now: Date.now, sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) },
  });
  expect(run).toMatchObject({ code: 6, stdout: "" });
  expect(run.stderr).toContain("HF-BUSY: Process 7 runs");
});

test("a generated passphrase has 150 bits of the generator", () => {
  expect(newPassphrase((length) => new Uint8Array(length).map((_, index) => index))).toBe(
    "01234-56789-abcde-fghjk-mnpqr-stvwx",
  );
});
