import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { collect } from "@holdfast/shared/repository/maintenance/collect";
import { createRepository, type Repository } from "@holdfast/shared/repository/repository";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { restore } from "../../mover/pipeline/test-repository.ts";
import { clock, diskBytes, diskOf, passphrase, storeAt, type Told } from "./killed-child.ts";

const rounds = 50;
/** What a child that is killed may have read since its last checkpoint: the checkpoint's distance, and what is on its way. */
const lostBytesMax = 6 * 2 ** 20;

describe(`a process that backs up, collects and restores, killed ${rounds} times`, () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-killed-"));
  const place = join(folder, "repository");
  let repository: Repository;
  const committed = new Set<string>();
  const forgotten = new Set<string>();
  const read = new Map<string, number>();
  const killsWhileReading = new Map<string, number>();
  const seen = new Map<Told["kind"], number>();

  beforeAll(async () => {
    mkdirSync(place);
    repository = await createRepository({
      store: storeAt(place),
      passphrase,
      clock,
      random,
      settings: {
        packBytes: 512 * 1024,
        chunkBytesMin: 8 * 1024,
        chunkBytesTarget: 32 * 1024,
        chunkBytesMax: 64 * 1024,
        leafBytes: 512 * 1024,
      },
      passphraseCost: { memoryKiB: 64, passes: 1 },
    });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Lets a child work for a while, and kills it. */
  async function round(number: number): Promise<void> {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "killed-child.ts"), place, folder, String(number * 7919)],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const ended = new Promise<NodeJS.Signals | null>((resolve) => {
      child.once("close", (_code, signal) => resolve(signal));
    });
    let reading: string | undefined;
    for await (const line of createInterface({ input: child.stdout })) {
      const told: Told = JSON.parse(line);
      seen.set(told.kind, (seen.get(told.kind) ?? 0) + 1);
      if (told.kind === "ready") {
        setTimeout(() => child.kill("SIGKILL"), Buffer.from(random(2)).readUInt16LE() % 600);
      } else if (told.kind === "read") {
        reading = told.pointId;
        read.set(told.pointId, (read.get(told.pointId) ?? 0) + told.bytes);
      } else if (told.kind === "committed") {
        committed.add(told.pointId);
        reading = undefined;
      } else if (told.kind === "forgetting") forgotten.add(told.pointId);
    }
    if (reading !== undefined) {
      killsWhileReading.set(reading, (killsWhileReading.get(reading) ?? 0) + 1);
    }
    expect([await ended, errors]).toEqual(["SIGKILL", ""]);
  }

  async function checkPoints(): Promise<void> {
    const listed = new Set<string>();
    for await (const { pointId, vmKey, disks } of repository.listPoints()) {
      const { bytes } = await restore(repository, disks[0]?.recordKey ?? "", {
        sizeBytes: diskBytes,
      });
      const expected = diskOf(vmKey, Number(pointId.slice(vmKey.length + 2)));
      expect([pointId, Buffer.compare(bytes, expected)]).toEqual([pointId, 0]);
      listed.add(pointId);
    }
    for (const pointId of committed) {
      if (!forgotten.has(pointId)) expect(listed, pointId).toContain(pointId);
    }
  }

  test("every point that was told of restores, at any time", async () => {
    for (let number = 1; number <= rounds; number += 1) {
      await round(number);
      if (number % 10 === 0) await checkPoints();
    }
    for (const kind of ["ready", "read", "committed", "resumed", "collected"] as const) {
      expect(seen.get(kind) ?? 0, kind).toBeGreaterThan(0);
    }
  }, 900_000);

  test("what is read again after a kill is bounded", () => {
    for (const [pointId, bytes] of read) {
      const kills = killsWhileReading.get(pointId) ?? 0;
      expect(bytes, pointId).toBeLessThanOrEqual(
        (kills + 1) * lostBytesMax + diskBytes * (kills + 1),
      );
    }
  });

  test("two collections later nothing is left of all that was killed", async () => {
    const run = (more: object = {}) =>
      collect({ repository, holder: "test", observer: "h", allowShare: 1, logger, ...more });
    await run({ waitMs: 3_600_000 });
    await run({ waitMs: 3_600_000 });
    const left = await run({ isDryRun: true });
    // But the session of the collection before, beside those of the points.
    expect(left.garbage.classes.map(({ reason }) => reason)).toEqual(["session-record"]);
    const sessions = new Set<string>();
    for await (const { key } of repository.store.list("sessions/")) {
      sessions.add(key.split("/")[1] ?? "");
    }
    expect(sessions.size).toBeLessThanOrEqual(left.points.kept + 1);
    expect(left.waitingFor).toEqual([]);
    await checkPoints();
  }, 300_000);
});
