import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { type CopyPointsOptions, type CopyReport, copyPoints } from "./copy-points.ts";
import { backUp, diskOf, hookedStore, keysOf, restoreAll } from "./test-collect.ts";
import { createTestRepository, openTestRepository, restore } from "./test-repository.ts";

/** Three points of one VM that change a little each time, and one of another. */
const disks = new Map([
  ["vm-a/point-1", diskOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)],
  ["vm-a/point-2", diskOf(1, 2, 3, 4, 5, 60, 7, 8, 9, 10, 11, 12)],
  ["vm-a/point-3", diskOf(1, 2, 3, 4, 5, 60, 7, 8, 9, 10, 11, 120, 13)],
  ["vm-b/point-1", diskOf(1, 2, 50)],
]);

async function sourceWithPoints(store = createMemoryObjectStore()): Promise<Repository> {
  const repository = await createTestRepository(store);
  for (const [name, disk] of disks) {
    const [vm = "", pointId = ""] = name.split("/");
    await backUp(repository, { vm, pointId, disk });
  }
  return repository;
}

function copy(
  source: Repository,
  target: Repository,
  more: Partial<CopyPointsOptions> = {},
): Promise<CopyReport> {
  return copyPoints({
    source,
    target,
    isWanted: () => true,
    isDryRun: false,
    holder: "test",
    clock: systemClock,
    workers: 0,
    signal: new AbortController().signal,
    logger: silentLogger,
    ...more,
  });
}

const statesOf = ({ points }: CopyReport) =>
  Object.fromEntries(points.map(({ name, pointId, state }) => [`${name}/${pointId}`, state]));

test("what was copied is restored byte for byte from the target alone, under the same ids, times and metadata", async () => {
  const source = await sourceWithPoints();
  const target = await createTestRepository(createMemoryObjectStore());
  const report = await copy(source, target);
  expect(new Set(Object.values(statesOf(report)))).toEqual(new Set(["copied"]));
  expect((await restoreAll(target, disks)).toSorted()).toEqual([...disks.keys()].toSorted());
  for await (const copied of target.listPoints()) {
    const original = [];
    for await (const point of source.listPoints({ vmKey: copied.vmKey })) original.push(point);
    const its = original.find(({ pointId }) => pointId === copied.pointId);
    if (its === undefined) throw new Error(`${copied.pointId} is not in the source`);
    const { vmName, takenAt, jobId, fence, mode, consistency, warnings, providerId } = its;
    const same = { vmName, takenAt, jobId, fence, mode, consistency, warnings, providerId };
    expect(copied).toMatchObject(same);
    expect(copied.copiedFrom).toEqual({
      repositoryId: source.repositoryId,
      rootKey: its.rootKey,
    });
    const [left, right] = await Promise.all([
      source.readPoint(its.rootKey),
      target.readPoint(copied.rootKey),
    ]);
    expect(right.metadata).toEqual(left.metadata);
  }
});

test("a second copy reads and stores nothing", async () => {
  const source = await sourceWithPoints();
  const store = createMemoryObjectStore();
  const target = await createTestRepository(store);
  await copy(source, target);
  const before = await keysOf(store);
  const again = await copy(source, target);
  expect(new Set(Object.values(statesOf(again)))).toEqual(new Set(["present"]));
  expect(again).toMatchObject({ bytesRead: 0, bytesNew: 0, bytesStored: 0 });
  expect(await keysOf(store)).toEqual(before);
});

test("of a later point only what changed is read; what the target has is not stored again", async () => {
  const source = await sourceWithPoints();
  const target = await createTestRepository(createMemoryObjectStore());
  const first = await copy(source, target, {
    isWanted: ({ pointId, vmKey }) => vmKey === "vm-a" && pointId === "point-1",
  });
  expect(first.bytesNew).toBe(disks.get("vm-a/point-1")?.length);
  const second = await copy(source, target, {
    isWanted: ({ pointId, vmKey }) => vmKey === "vm-a" && pointId !== "point-3",
  });
  expect(statesOf(second)).toEqual({ "vm-a/point-1": "present", "vm-a/point-2": "copied" });
  // One piece of 64 KiB changed; chunks that it shares with its neighbours are read with it.
  expect(second.bytesRead).toBeLessThan(256 * 1024);
  const other = await copy(source, target, { isWanted: ({ vmKey }) => vmKey === "vm-b" });
  expect(other.bytesNew).toBeLessThan(128 * 1024);
});

test("a dry run says what is missing and writes nothing", async () => {
  const source = await sourceWithPoints();
  const store = createMemoryObjectStore();
  const target = await createTestRepository(store);
  const before = await keysOf(store);
  const report = await copy(source, target, { isDryRun: true });
  expect(new Set(Object.values(statesOf(report)))).toEqual(new Set(["missing"]));
  expect(await keysOf(store)).toEqual(before);
});

test("a point that is damaged in the source is named, and the others are copied", async () => {
  const store = createMemoryObjectStore();
  const source = await sourceWithPoints(store);
  for await (const point of source.listPoints({ vmKey: "vm-a" })) {
    if (point.pointId === "point-2") await store.remove([point.disks[0]?.recordKey ?? ""]);
  }
  const target = await createTestRepository(createMemoryObjectStore());
  const report = await copy(source, target);
  expect(statesOf(report)).toEqual({
    "vm-a/point-1": "copied",
    "vm-a/point-2": "damaged",
    "vm-a/point-3": "copied",
    "vm-b/point-1": "copied",
  });
  expect((await restoreAll(target, disks)).length).toBe(3);
});

test("a base that is damaged in either repository costs reading, never the copy", async () => {
  for (const where of ["source", "target"] as const) {
    const stores = { source: createMemoryObjectStore(), target: createMemoryObjectStore() };
    const source = await sourceWithPoints(stores.source);
    const target = await createTestRepository(stores.target);
    const isFirst = ({ pointId }: { pointId: string }): boolean => pointId === "point-1";
    await copy(source, target, { isWanted: isFirst });
    for await (const point of { source, target }[where].listPoints({ vmKey: "vm-a" })) {
      if (isFirst(point)) await stores[where].remove([point.disks[0]?.recordKey ?? ""]);
    }
    const report = await copy(source, target, { isWanted: ({ pointId }) => pointId === "point-2" });
    expect(statesOf(report)).toEqual({ "vm-a/point-2": "copied" });
    for await (const { pointId, disks: copied } of target.listPoints({ vmKey: "vm-a" })) {
      if (pointId !== "point-2") continue;
      const disk = disks.get("vm-a/point-2") ?? new Uint8Array();
      const { bytes } = await restore(target, copied[0]?.recordKey ?? "", {
        sizeBytes: disk.length,
      });
      expect(Buffer.compare(bytes, disk)).toBe(0);
    }
  }
});

test("a replica is not a target", async () => {
  const source = await sourceWithPoints();
  await expect(copy(source, source)).rejects.toMatchObject({ code: "input.invalid" });
});

test("a copy that is stopped at any call leaves whole points only, and the next one finishes", async () => {
  const source = await sourceWithPoints();
  const isWanted = ({ vmKey, pointId }: { vmKey: string; pointId: string }): boolean =>
    vmKey === "vm-a" && pointId !== "point-3";
  let failedAt = 0;
  for (let stopAt = 1; ; stopAt += 7) {
    const store = createMemoryObjectStore();
    await createTestRepository(store);
    const stop = new AbortController();
    const hooked: ObjectStore = hookedStore(store, async (number) => {
      if (number < stopAt) return;
      stop.abort(new Failure("cancelled", { message: "stopped" }));
      throw new Failure("storage.unreachable", { message: "stopped" });
    });
    const outcome = await openTestRepository(hooked)
      .then((target) => copy(source, target, { isWanted, signal: stop.signal }))
      .catch((error: unknown) => error);
    const target = await openTestRepository(store);
    await restoreAll(target, disks);
    if (!(outcome instanceof Error)) break;
    expect(isFailure(outcome)).toBe(true);
    failedAt += 1;
    await copy(source, target, { isWanted });
    expect((await restoreAll(target, disks)).length).toBe(2);
  }
  expect(failedAt).toBeGreaterThan(4);
});
