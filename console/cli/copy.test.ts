import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CopyReport, RebuildReport, StatsReport } from "@holdfast/shared/contracts/standalone";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

/** Second copies, statistics and rebuilding, by the real command with the real mover as its child. */
const command = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "holdfast-copy-"));
const source = join(folder, "source");
const target = join(folder, "target");
const disk = join(folder, "disk.raw");
const bytes = randomBytes(3 * 1024 ** 2 + 777);
let pointId = "";

// Each step starts processes and derives a key on purpose slowly; a busy machine needs its time.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

function holdfast(words: readonly string[], passphrase = "correct horse") {
  const { PATH } = process.env;
  const env = { PATH, HOME: folder, HOLDFAST_PASSPHRASE: passphrase };
  return spawnSync(process.execPath, [command, ...words], {
    encoding: "utf8",
    env: { ...env, HOLDFAST_TARGET_PASSPHRASE: "battery staple" },
    input: "",
  });
}

const resultOf = (stdout: string): unknown =>
  JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "").result;

beforeAll(() => {
  writeFileSync(disk, bytes);
  expect(holdfast(["repository", "init", source]).status).toBe(0);
  expect(holdfast(["repository", "init", target], "battery staple").status).toBe(0);
  const run = holdfast([
    "image",
    "backup",
    disk,
    "--repository",
    source,
    "--name",
    "disk",
    "--json",
  ]);
  expect(run.status).toBe(0);
  pointId = (resultOf(run.stdout) as { point: { pointId: string } }).point.pointId;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expectRestored(repository: string, passphrase: string): void {
  const output = join(folder, `restored-${randomBytes(4).toString("hex")}.raw`);
  const words = ["image", "restore", pointId, "--repository", repository, "-o", output];
  expect(holdfast(words, passphrase)).toMatchObject({ status: 0 });
  expect(readFileSync(output).equals(bytes)).toBe(true);
}

test("a copied point restores from the second repository with its own passphrase, and is not copied twice", () => {
  const words = ["repository", "copy", source, target, "--json"];
  const dry = CopyReport.parse(resultOf(holdfast([...words, "--dry-run"]).stdout));
  expect(dry.points.map((its) => its.state)).toEqual(["missing"]);
  expect(readdirSync(target)).not.toContain("points");
  const first = CopyReport.parse(resultOf(holdfast(words).stdout));
  expect(first.points).toMatchObject([{ pointId, name: "disk", state: "copied" }]);
  expect(first.bytesNew).toBe(bytes.length);
  const second = holdfast(words);
  expect(second.status).toBe(0);
  expect(CopyReport.parse(resultOf(second.stdout))).toMatchObject({ bytesRead: 0, bytesStored: 0 });
  expectRestored(target, "battery staple");
});

test("what to copy can be chosen; a point that is not there is not found", () => {
  const words = ["repository", "copy", source, target, "--json"];
  const none = CopyReport.parse(resultOf(holdfast([...words, "--name", "other"]).stdout));
  expect(none.points).toEqual([]);
  const late = CopyReport.parse(resultOf(holdfast([...words, "--since", "2999-01-01"]).stdout));
  expect(late.points).toEqual([]);
  expect(holdfast([...words, "--point", "nothing"])).toMatchObject({ status: 5 });
  expect(holdfast([...words, "--since", "2999-99-99"])).toMatchObject({ status: 2 });
});

test("a replica opens with the source's passphrase; a second run copies nothing", () => {
  const replica = join(folder, "replica");
  const words = ["repository", "copy", source, replica, "--replica", "--json"];
  expect(resultOf(holdfast(words).stdout)).toMatchObject({ points: 1, different: [] });
  expect(resultOf(holdfast(words).stdout)).toMatchObject({ points: 1, objects: 0 });
  expectRestored(replica, "correct horse");
  expect(holdfast(["repository", "copy", source, target, "--replica"])).toMatchObject({
    status: 2,
  });
  expect(holdfast([...words, "--name", "disk"])).toMatchObject({ status: 2 });
});

test("an index that is lost is made anew, and the next backup stores nothing", () => {
  rmSync(join(source, "index"), { recursive: true });
  const run = holdfast(["repository", "rebuild", source, "--json"]);
  expect(run.status).toBe(0);
  const report = RebuildReport.parse(resultOf(run.stdout));
  expect(report).toMatchObject({ damagedPacks: [], removed: 0, isDryRun: false });
  expect(report.chunks).toBeGreaterThan(5);
  const words = ["image", "backup", disk, "--repository", source, "--name", "again", "--json"];
  const again = resultOf(holdfast(words).stdout) as { summary: { bytesNew: number } };
  expect(again.summary.bytesNew).toBe(0);
});

test("statistics say what is there, exactly where all packs were looked at", () => {
  const run = holdfast(["repository", "stats", target, "--json"], "battery staple");
  expect(run).toMatchObject({ status: 0, stderr: "" });
  const stats = StatsReport.parse(JSON.parse(run.stdout));
  expect(stats.points).toMatchObject({ count: 1, vms: 1, logicalBytes: bytes.length });
  expect(stats.sample).toMatchObject({ isExact: true, rawBytes: bytes.length, unreadable: 0 });
  expect(stats.ratios.uniqueBytes).toBe(bytes.length);
  expect(stats.sessions).toEqual([]);
  expect(stats.condemned).toEqual([]);
  const sums = stats.stored.classes.reduce((sum, its) => sum + its.bytes, 0);
  expect(sums).toBe(stats.stored.bytes);
  const shown = holdfast(["repository", "stats", target], "battery staple");
  expect(shown.stdout).toContain(stats.repositoryId);
  expect(shown.stdout).toContain("disk records");
});
