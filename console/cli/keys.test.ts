import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { KeysResult } from "@holdfast/shared/contracts/repository-keys";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

/** The real command with the real mover as its child, on a folder. */
const command = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));
let folder = "";
let repository = "";

// Each step starts two processes and derives a key on purpose slowly; a busy machine needs its time.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-keys-"));
  repository = join(folder, "repository");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function holdfast(words: readonly string[], passphrase = "correct horse") {
  return spawnSync(process.execPath, [command, ...words], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: folder, HOLDFAST_PASSPHRASE: passphrase },
    input: "",
  });
}

function keys(words: readonly string[], passphrase?: string): KeysResult {
  const [verb = "", ...rest] = words;
  const run = holdfast(["repository", "keys", verb, repository, "--json", ...rest], passphrase);
  expect(run.stderr).toBe("");
  return KeysResult.parse(JSON.parse(run.stdout));
}

test("recovery key at creation, another passphrase, removal and rotation, each shown and checked", () => {
  const made = holdfast(["repository", "init", repository, "--recovery-key", "--json"]);
  const { words } = JSON.parse(made.stdout);
  expect(words.split(" ")).toHaveLength(24);
  writeFileSync(join(folder, "words"), `${words}\n`);
  writeFileSync(join(folder, "second"), "battery staple\n");

  const added = keys(["add", "--new-passphrase-file", join(folder, "second"), "--label", "safe"]);
  expect(added.keys.map(({ kind }) => kind).sort()).toEqual([
    "passphrase",
    "passphrase",
    "recovery-key",
  ]);
  const first = added.keys.find(({ isOpen }) => isOpen);
  expect(first?.label).toBe("first passphrase");

  const unsure = holdfast(["repository", "keys", "remove", repository, first?.id ?? ""], words);
  expect([unsure.status, unsure.stderr]).toEqual([2, expect.stringContaining("--confirm")]);
  const left = keys(["remove", first?.id ?? "", "--confirm"], words);
  expect(left.keys).toHaveLength(2);

  const rotated = keys(["rotate"], "battery staple");
  expect(rotated.activeEpoch).toBeGreaterThan(1);
  expect(rotated.keys.every(({ isComplete }) => isComplete)).toBe(true);
  writeFileSync(join(folder, "wrong"), "correct horse\n");
  const files = ["words", "wrong"].flatMap((name) => ["--also", join(folder, name)]);
  const run = ["repository", "keys", "check", repository, "--json", ...files];
  const checked = holdfast(run, "battery staple");
  expect(checked.status).toBe(8);
  const { opened } = KeysResult.parse(JSON.parse(checked.stdout));
  expect(opened?.map((ids) => ids.length)).toEqual([1, 1, 0]);
  // Nothing that was printed but the words, once, is a secret.
  const all = JSON.stringify([added, left, rotated, checked.stdout]);
  for (const secret of [words, "battery staple", "correct horse"])
    expect(all).not.toContain(secret);
});
