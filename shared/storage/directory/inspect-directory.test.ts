import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { inspectDirectory } from "./inspect-directory.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-inspect-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function dangers(path: string): Promise<readonly string[]> {
  const findings = await inspectDirectory(path);
  return findings.filter(({ severity }) => severity === "danger").map(({ id }) => id);
}

test("a folder of one's own is no danger, and what it lies on is told", async () => {
  const findings = await inspectDirectory(folder);
  expect(findings[0]).toMatchObject({ id: "file-system", severity: "note" });
  expect(findings[0]?.what).toMatch(/GiB of .* GiB are free/);
  expect(await dangers(folder)).toEqual([]);
});

test("a folder in which everybody may remove files is one", async () => {
  await chmod(folder, 0o777);
  expect(await dangers(folder)).toEqual(["writable-by-all"]);
  await chmod(folder, 0o1777);
  expect(await dangers(folder)).toEqual([]);
});

test("a folder that is not there yet is judged by the one above it, and not made", async () => {
  await chmod(folder, 0o777);
  expect(await dangers(join(folder, "a/b"))).toEqual(["writable-by-all"]);
  expect(await readdir(folder)).toEqual([]);
});
