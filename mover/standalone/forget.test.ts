import type { StandaloneLine } from "@holdfast/shared/contracts/standalone";
import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { backUp, diskOf, restoreAll } from "../pipeline/test-collect.ts";
import { beginSession, createTestRepository, newPoint } from "../pipeline/test-repository.ts";
import { forgetPoints } from "./forget.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

async function setUp() {
  const repository = await createTestRepository(createMemoryObjectStore());
  const lines: StandaloneLine[] = [];
  const context = {
    signal: new AbortController().signal,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    emit: (line: StandaloneLine) => void lines.push(line),
    reportProgress: () => () => undefined,
    open: async () => repository,
  } as unknown as StandaloneContext;
  return { repository, context };
}

const request = (more: Partial<Request<"image-forget">>): Request<"image-forget"> => ({
  kind: "image-forget",
  url: "memory:",
  passphrase: "x",
  points: [],
  lastToo: false,
  dryRun: false,
  waitSeconds: 0,
  allowShare: 1,
  allowEmpty: false,
  dropDamagedLists: false,
  ...more,
});
const keepNone = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

const disk = diskOf(1, 2);

/** One point a day. */
async function backUpDays(
  { repository }: Awaited<ReturnType<typeof setUp>>,
  vm: string,
  days: number,
): Promise<void> {
  for (let day = 1; day <= days; day += 1) {
    const pointId = `${vm}-${day}`;
    const rootKey = await backUp(repository, { vm, pointId, disk });
    const { disks } = await repository.readPoint(rootKey);
    // Again under a date of its own: `backUp` has one for all.
    const session = await beginSession(repository);
    const names = { pointId: `${pointId}-dated`, vmKey: vm, vmName: vm, jobId: `dated-${pointId}` };
    const takenAt = `2026-11-${String(day).padStart(2, "0")}T12:00:00Z`;
    const point = newPoint(disks[0]?.recordKey ?? "", { ...names, takenAt });
    await repository.writePoint(session, point);
  }
}

test("the rules keep what they say, of each name, and say why", async () => {
  const world = await setUp();
  await backUpDays(world, "a", 4);
  await backUpDays(world, "b", 2);
  const retention = { ...keepNone, daily: 2 };
  const planned = await forgetPoints(world.context, request({ retention, dryRun: true }));
  expect(planned.collected.isDryRun).toBe(true);
  const report = await forgetPoints(world.context, request({ retention }));
  expect(report.points).toEqual(planned.points);
  const kept = report.points.filter(({ keptBy }) => keptBy.length > 0);
  expect(kept.map(({ name }) => name).sort()).toEqual(["a", "a", "b", "b"]);
  expect(report.collected.points.kept).toBe(4);
  const left: string[] = [];
  for await (const { pointId } of world.repository.listPoints()) left.push(pointId);
  expect(left.sort()).toEqual(kept.map(({ pointId }) => pointId).sort());
});

test("named points go, the last one of a name only when that is said", async () => {
  const { repository, context } = await setUp();
  await backUp(repository, { vm: "a", pointId: "p1", disk });
  await backUp(repository, { vm: "a", pointId: "p2", disk });
  await backUp(repository, { vm: "b", pointId: "p3", disk });
  await expect(forgetPoints(context, request({ points: ["p3"] }))).rejects.toMatchObject({
    code: "collect.brake",
  });
  await expect(forgetPoints(context, request({ points: ["p9"] }))).rejects.toMatchObject({
    code: "not-found",
  });
  await expect(forgetPoints(context, request({}))).rejects.toMatchObject({ code: "input.invalid" });
  const report = await forgetPoints(context, request({ points: ["p1", "p3"], lastToo: true }));
  expect(report.points.map(({ pointId }) => pointId)).toEqual(["p1", "p3"]);
  expect(report.collected.points.expired).toHaveLength(2);
  expect(await restoreAll(repository, new Map([["a/p2", disk]]))).toEqual(["a/p2"]);
});

test("a root that does not open is given up by its object's name", async () => {
  const { repository, context } = await setUp();
  const damaged = await backUp(repository, { vm: "a", pointId: "p1", disk });
  await backUp(repository, { vm: "b", pointId: "p2", disk });
  await repository.store.remove([damaged]);
  await repository.store.put(damaged, new Uint8Array(100));
  const report = await forgetPoints(context, request({ points: [damaged] }));
  expect(report.collected.points.expired).toEqual([damaged]);
  expect(await repository.store.head(damaged)).toBeUndefined();
});
