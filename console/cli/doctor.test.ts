import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DoctorReport } from "@holdfast/shared/contracts/standalone";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

/** The real command on a real folder. */
const command = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));
let folder = "";
let repository = "";

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-doctor-"));
  repository = join(folder, "repository");
  expect(holdfast(["init", repository]).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function holdfast(words: readonly string[], passphrase = "correct horse") {
  return spawnSync(process.execPath, [command, "repository", ...words], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: folder, HOLDFAST_PASSPHRASE: passphrase },
    input: "",
  });
}

function examine(url: string, passphrase?: string) {
  const { status, stdout, stderr } = holdfast(["doctor", url, "--json"], passphrase);
  expect(stderr).toBe("");
  const { findings } = DoctorReport.parse(JSON.parse(stdout));
  const dangers = findings.filter(({ severity }) => severity === "danger");
  return { status, findings, dangers: dangers.map(({ id }) => id) };
}

test("a repository that is all right is exit code 0, and nothing stays of the probe", () => {
  const { status, findings, dangers } = examine(repository);
  expect({ status, dangers }).toEqual({ status: 0, dangers: [] });
  expect(findings.map(({ id }) => id)).toEqual(expect.arrayContaining(["file-system", "points"]));
  expect(readdirSync(repository).sort()).toEqual(["config", "keys"]);
  expect(holdfast(["doctor", repository]).stdout).toMatch(/^all right: .*, 0 dangers, /m);
});

test("what endangers data is exit code 1 and comes with what to do", () => {
  expect(examine(repository, "another")).toMatchObject({
    status: 1,
    dangers: ["repository.key-wrong"],
  });
  const config = join(repository, "config");
  const bytes = readFileSync(config);
  const changed = Buffer.from(bytes);
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
  rmSync(config);
  writeFileSync(config, changed);
  const { status, findings, dangers } = examine(repository);
  expect({ status, dangers }).toEqual({ status: 1, dangers: ["object.corrupt"] });
  expect(findings[0]?.remedy).not.toBe("");
  expect(holdfast(["doctor", repository]).stdout).toContain("DANGER   object.corrupt");
  rmSync(config);
  writeFileSync(config, bytes);
});

test("where there is no repository nothing is made", () => {
  const missing = join(folder, "not", "mounted");
  expect(examine(missing)).toMatchObject({ status: 1, dangers: ["no-repository"] });
  expect(existsSync(join(folder, "not"))).toBe(false);
});

test("what needs Object Lock or versions says so on a folder", () => {
  for (const words of [
    ["init", join(folder, "locked"), "--lock", "30d"],
    ["extend-locks", repository],
    ["recover", repository],
  ]) {
    expect(holdfast(words)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("HF-UNSUPPORTED"),
    });
  }
  expect(existsSync(join(folder, "locked", "config"))).toBe(false);
  for (const [option, value] of [
    ["--lock", "0d"],
    ["--lock", "soon"],
    ["--lock-mode", "compliance"],
  ] as const) {
    expect(holdfast(["init", join(folder, "x"), option, value])).toMatchObject({ status: 2 });
  }
});
