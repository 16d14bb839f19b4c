import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ErrorDocument, JobEvent } from "@holdfast/shared/contracts/events";
import { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

/** The real command with the real mover as its child, on real files. */
const command = fileURLToPath(new URL("bin/holdfast.mjs", import.meta.url));
const MiB = 1024 ** 2;

let folder = "";
let repository = "";
let source = "";

// Each step starts processes and derives a key on purpose slowly; a busy machine needs its time.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-standalone-"));
  repository = join(folder, "repository");
  source = join(folder, "disk.raw");
  // Data, a hole, data, and an end that is not on any block's boundary.
  const file = openSync(source, "w");
  writeSync(file, randomBytes(5 * MiB), 0, 5 * MiB, 0);
  writeSync(file, randomBytes(3 * MiB + 777), 0, 3 * MiB + 777, 40 * MiB);
  expect(holdfast(["repository", "init", repository]).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const environment = (passphrase: string): NodeJS.ProcessEnv => ({
  PATH: process.env["PATH"],
  HOME: folder,
  HOLDFAST_PASSPHRASE: passphrase,
});

function holdfast(words: readonly string[], passphrase = "correct horse") {
  return spawnSync(process.execPath, [command, ...words], {
    encoding: "utf8",
    env: environment(passphrase),
    input: "",
  });
}

function backUp(words: readonly string[] = []) {
  const run = holdfast(["image", "backup", source, "--repository", repository, "--json", ...words]);
  expect(run).toMatchObject({ status: 0, stderr: "" });
  const events = run.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JobEvent.parse(JSON.parse(line)));
  const result = events.at(-1)?.result as {
    point: { pointId: string };
    summary: { sizeBytes: number; bytesRead: number; bytesNew: number; bytesStored: number };
  };
  return { events, ...result };
}

test("a file backed up twice: the second stores next to nothing, both restore byte for byte", () => {
  const first = backUp(["--name", "disk"]);
  expect(first.events.map(({ type }) => type)).toEqual(
    expect.arrayContaining(["job.started", "stage.started", "stage.finished", "job.finished"]),
  );
  expect(first.summary.sizeBytes).toBe(43 * MiB + 777);
  expect(first.summary.bytesNew).toBeGreaterThan(8 * MiB);
  const second = backUp(["--name", "disk"]);
  expect(second.summary.bytesNew).toBe(0);
  expect(second.summary.bytesStored).toBeLessThan(64 * 1024);
  const other = backUp(["--name", "other"]);
  expect(other.summary.bytesNew).toBe(0);

  const listed = holdfast(["image", "points", "--repository", repository, "--name", "disk"]);
  const ids = listed.stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t")[0]);
  expect(ids).toEqual([second.point.pointId, first.point.pointId]);
  for (const id of [first.point.pointId, other.point.pointId]) {
    const output = join(folder, `${id}.raw`);
    const run = holdfast(["image", "restore", id, "--repository", repository, "-o", output]);
    expect(run.status).toBe(0);
    expect(readFileSync(output).equals(readFileSync(source))).toBe(true);
  }
});

test("what a point knows of its VM comes out of the repository alone", () => {
  const { point } = backUp(["--name", "disk"]);
  const words = ["image", "metadata", point.pointId, "--repository", repository];
  const shown = JSON.parse(holdfast([...words, "--json"]).stdout);
  expect(shown).toMatchObject({ pointId: point.pointId, name: "disk", providerKind: "image" });
  const output = join(folder, "documents");
  expect(holdfast([...words, "-o", output])).toMatchObject({ status: 0, stderr: "" });
  expect(readdirSync(output)).toEqual(["description.json"]);
  expect(holdfast([...words, "-o", output]).status).toBe(6);
});

test("a restore does not replace a file unless it is told to", () => {
  const { point } = backUp(["--name", "disk"]);
  const output = join(folder, "precious.raw");
  writeFileSync(output, "precious");
  const words = ["image", "restore", point.pointId, "--repository", repository, "-o", output];
  expect(holdfast(words)).toMatchObject({ status: 6 });
  expect(readFileSync(output, "utf8")).toBe("precious");
  expect(holdfast([...words, "--overwrite", "--disk", "0"])).toMatchObject({ status: 0 });
  expect(readFileSync(output).equals(readFileSync(source))).toBe(true);
});

test.each([
  [
    "a wrong passphrase",
    () => ["points", "--repository", repository],
    "wrong",
    4,
    "HF-REPOSITORY-KEY-WRONG",
  ],
  [
    "a missing repository",
    () => ["points", "--repository", join(folder, "nothing")],
    "x",
    5,
    "HF-REPOSITORY-NOT-FOUND",
  ],
  [
    "an unknown point",
    () => ["restore", "nope", "--repository", repository, "-o", join(folder, "x")],
    "correct horse",
    5,
    "HF-NOT-FOUND",
  ],
  [
    "a missing source",
    () => ["backup", join(folder, "none"), "--repository", repository],
    "correct horse",
    5,
    "HF-NOT-FOUND",
  ],
  [
    "a repository URL that is none",
    () => ["points", "--repository", "s3://A B"],
    "x",
    2,
    "HF-INPUT-INVALID",
  ],
  [
    "an empty passphrase without a terminal",
    () => ["points", "--repository", repository],
    "",
    2,
    "HF-INPUT-INVALID",
  ],
])("%s ends in its exit code and id", (_, words, passphrase, status, id) => {
  const run = holdfast(["image", ...words(), "--json"], passphrase);
  expect(run.status).toBe(status);
  const last = run.stderr.trimEnd().split("\n").at(-1) ?? "";
  expect(ErrorDocument.parse(JSON.parse(last))).toMatchObject({ id, exitCode: status });
  expect(existsSync(join(folder, "x"))).toBe(false);
});

test("an existing repository is not initialised again", () => {
  expect(holdfast(["repository", "init", repository]).status).toBe(6);
});

test("a repository of a newer format is left alone", () => {
  const newer = join(folder, "newer");
  expect(holdfast(["repository", "init", newer]).status).toBe(0);
  const config = join(newer, "config");
  const bytes = readFileSync(config);
  // The version follows the eight bytes of magic (docs/formats).
  bytes.writeUInt16LE(9, 8);
  writeFileSync(config, bytes);
  const before = readdirSync(newer, { recursive: true }).sort();
  const run = holdfast(["image", "backup", source, "--repository", newer]);
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("HF-REPOSITORY-FORMAT-UNKNOWN");
  expect(readdirSync(newer, { recursive: true }).sort()).toEqual(before);
});

test("damaged data is exit code 8 and leaves no file behind", () => {
  const damaged = join(folder, "damaged");
  expect(holdfast(["repository", "init", damaged]).status).toBe(0);
  const backup = holdfast(["image", "backup", source, "--repository", damaged, "--json"]);
  const { result } = JSON.parse(backup.stdout.trimEnd().split("\n").at(-1) ?? "");
  const packs = readdirSync(join(damaged, "packs"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  for (const pack of packs) {
    const bytes = readFileSync(pack);
    const middle = Math.floor(bytes.length / 3);
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    rmSync(pack);
    writeFileSync(pack, bytes);
  }
  const output = join(folder, "damaged.raw");
  const run = holdfast([
    "image",
    "restore",
    result.point.pointId,
    "--repository",
    damaged,
    "-o",
    output,
  ]);
  expect(run.status).toBe(8);
  expect(readdirSync(folder).filter((name) => name.startsWith("damaged.raw"))).toEqual([]);
});

test("verify reads everything, names what is damaged, and says it by exit code 8", () => {
  const home = join(folder, "verified");
  expect(holdfast(["repository", "init", home]).status).toBe(0);
  for (const name of ["web", "mail"]) {
    const words = ["image", "backup", source, "--repository", home, "--name", name];
    expect(holdfast(words).status).toBe(0);
  }
  const verify = ["repository", "verify", home];
  const good = holdfast(verify);
  expect(good).toMatchObject({ status: 0 });
  expect(good.stdout).toMatch(/^all right: 2 points, 2 disks, \d+ chunks, /);
  const sampled = holdfast([...verify, "--sample", "5%"]);
  expect(sampled).toMatchObject({ status: 0 });
  expect(sampled.stdout).toContain("(a sample of 5%)");
  for (const share of ["0%", "5", "101%", "x"]) {
    expect(holdfast([...verify, "--sample", share]).status).toBe(2);
  }
  expect(holdfast([...verify, "--point", "nope"]).status).toBe(5);

  const largest = readdirSync(join(home, "packs"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort((left, right) => statSync(right).size - statSync(left).size)[0];
  rmSync(largest ?? "");
  const bad = holdfast([...verify, "--json"]);
  expect(bad.status).toBe(8);
  const last = JobEvent.parse(JSON.parse(bad.stdout.trimEnd().split("\n").at(-1) ?? ""));
  expect(last).toMatchObject({ type: "job.finished", state: "damaged" });
  const report = VerifyReport.parse(last.result);
  expect(report.damagedPoints.map(({ name }) => name).sort()).toEqual(["mail", "web"]);
  const first = report.damagedPoints[0]?.disks[0];
  expect(report.damagedPoints[1]?.disks[0]?.ranges).toEqual(first?.ranges);
  const told = holdfast(verify);
  expect(told).toMatchObject({ status: 8 });
  const { offset, length } = first?.ranges[0] ?? { offset: -1, length: -1 };
  expect(told.stdout).toContain(`bytes ${offset} to ${offset + length - 1}\n`);
  expect(told.stdout).toMatch(/packs were verified: within 24 h \d/);
  for (const wrong of [
    ["--every", "x"],
    ["--sample", "5%", "--limit", "1G"],
    ["--for", "soon"],
  ]) {
    expect(holdfast([...verify, ...wrong]).status).toBe(2);
  }
  const limited = holdfast([...verify, "--every", "30d", "--limit", "1"]);
  expect(limited).toMatchObject({ status: 8 });

  // Nothing else has these bytes: they are marked as lost, and everything else comes back.
  const repair = ["repository", "repair", home];
  const dry = holdfast([...repair, "--dry-run"]);
  expect(dry).toMatchObject({ status: 8 });
  expect(dry.stdout).toContain("nothing was written (dry run)");
  expect(holdfast(repair)).toMatchObject({ status: 8 });
  const listed = holdfast(["image", "points", "--repository", home]);
  expect(listed.stdout.match(/ lost$/gm)).toHaveLength(2);
  const [id = ""] = listed.stdout.split("\t");
  const output = join(folder, "despite.raw");
  const restore = ["image", "restore", id, "--repository", home, "-o", output];
  expect(holdfast(restore)).toMatchObject({ status: 8 });
  expect(existsSync(output)).toBe(false);
  const partly = holdfast([...restore, "--despite-damage"]);
  expect(partly).toMatchObject({ status: 8 });
  expect(partly.stdout).toContain(`LOST     bytes ${offset} to ${offset + length - 1} are zeros\n`);
  const expected = readFileSync(source);
  for (const range of first?.ranges ?? []) {
    expected.fill(0, range.offset, range.offset + range.length);
  }
  expect(readFileSync(output).equals(expected)).toBe(true);

  // The next backup stores them again; then older points are healed as well.
  const again = ["image", "backup", source, "--repository", home, "--name", "web"];
  expect(holdfast(again)).toMatchObject({ status: 0 });
  const healed = holdfast(repair);
  expect(healed).toMatchObject({ status: 0 });
  expect(healed.stdout.match(/^HEALED/gm)).toHaveLength(2);
  const whole = holdfast([...restore, "--overwrite"]);
  expect(whole).toMatchObject({ status: 0 });
  expect(readFileSync(output).equals(readFileSync(source))).toBe(true);
});

/** A source that accepts and never says a word. */
async function startSilentServer(name: string) {
  const path = join(folder, name);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    url: `nbd+unix:///?socket=${path}`,
    connected: once(server, "connection"),
    [Symbol.dispose]: () => void server.close(),
  };
}

test("Ctrl-C cancels a stand-alone backup: exit code 130, no point, the mover ends as well", async () => {
  using server = await startSilentServer("silent.sock");
  const words = ["image", "backup", server.url, "--repository", repository, "--name", "silent"];
  const child = spawn(process.execPath, [command, ...words], {
    env: environment("correct horse"),
    stdio: ["ignore", "ignore", "pipe"],
  });
  const [socket] = await server.connected;
  const closed = once(socket.resume(), "close");
  child.kill("SIGINT");
  expect((await once(child, "exit"))[0]).toBe(130);
  await closed;
  const listed = holdfast(["image", "points", "--repository", repository, "--name", "silent"]);
  expect(listed.stdout).toBe("");
});

test("a killed command leaves no mover working on its own", async () => {
  using server = await startSilentServer("orphan.sock");
  const words = ["image", "backup", server.url, "--repository", repository];
  const child = spawn(process.execPath, [command, ...words], {
    env: environment("correct horse"),
    stdio: "ignore",
  });
  const [socket] = await server.connected;
  const closed = once(socket.resume(), "close");
  child.kill("SIGKILL");
  // Resolves only when the mover has let go of the source.
  await closed;
});

test("the passphrase is in no argument and no environment of the mover", async () => {
  using server = await startSilentServer("secret.sock");
  const words = ["image", "backup", server.url, "--repository", repository];
  const child = spawn(process.execPath, [command, ...words], {
    env: environment("correct horse"),
    stdio: "ignore",
  });
  const [socket] = await server.connected;
  const movers = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8")
    .trim()
    .split(" ");
  expect(movers.length).toBe(1);
  for (const pid of movers) {
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("correct horse");
    expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).not.toContain("correct horse");
  }
  const closed = once(socket.resume(), "close");
  child.kill("SIGTERM");
  await closed;
});
