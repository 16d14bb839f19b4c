import { Failure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { unexplainedRootMs } from "@holdfast/shared/repository/maintenance/safety";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  createTestClock,
  diskOf,
  keysOf,
  openAt,
  restoreAll,
} from "./test-collect.ts";
import { createTestRepository } from "./test-repository.ts";

/** Two points of two VMs; the first one's session loses what `names` says. */
async function bereaved(isLost: (key: string) => boolean) {
  const store: ObjectStore = createMemoryObjectStore();
  const clock = createTestClock();
  await createTestRepository(store);
  const repository = await openAt(store, clock);
  const disks = new Map([
    ["a/1", diskOf(1, 2, 3)],
    ["b/1", diskOf(4, 5)],
  ]);
  const rootKey = await backUp(repository, { vm: "a", pointId: "1", disk: diskOf(1, 2, 3) });
  await backUp(repository, { vm: "b", pointId: "1", disk: diskOf(4, 5) });
  const before = await keysOf(store);
  const sessionId = rootKey.slice(-32, -16);
  const lost = before.filter((key) => key.startsWith(`sessions/${sessionId}/`) && isLost(key));
  const saved = new Map<string, Uint8Array>();
  for (const key of lost) saved.set(key, await store.get(key));
  await store.remove(lost);
  const putBack = async (): Promise<void> => {
    for (const [key, bytes] of saved) await store.put(key, bytes);
  };
  return { store, clock, repository, disks, rootKey, putBack };
}

describe("somebody removes a point's session", () => {
  test.each([
    ["all of it", () => true],
    ["its start", (key: string) => key.includes("/start-")],
  ] as const)("%s: the point's data stay, it is named, and can be put back", async (_, isLost) => {
    const { store, clock, repository, disks, rootKey, putBack } = await bereaved(isLost);
    const before = (await keysOf(store)).filter((key) =>
      /^(points|packs|disks|metadata)/.test(key),
    );
    for (const days of [0, 1, 12]) {
      clock.advance(days * 24 * 3_600_000);
      const report = await collectNow(repository);
      expect(report.unexplained).toMatchObject([{ rootKey, vmName: "a", pointId: "1" }]);
      expect(report.points.kept).toBe(1);
    }
    expect(await keysOf(store)).toEqual(expect.arrayContaining([...before]));
    await putBack();
    const report = await collectNow(repository);
    expect(report.unexplained).toEqual([]);
    expect((await restoreAll(repository, disks)).toSorted()).toEqual(["a/1", "b/1"]);
  });

  test("its end: the session is open again, and is ended with its point once it is silent", async () => {
    const { clock, repository, disks } = await bereaved((key) => key.includes("/end-"));
    for (const days of [0, 2, 2]) {
      clock.advance(days * 24 * 3_600_000);
      await collectNow(repository);
    }
    expect((await restoreAll(repository, disks)).toSorted()).toEqual(["a/1", "b/1"]);
  });

  test("after its days it goes, with all that nothing else needs", async () => {
    const { store, clock, repository, disks, rootKey } = await bereaved(() => true);
    const packs = (await keysOf(store, "packs/")).length;
    await collectNow(repository);
    clock.advance(unexplainedRootMs - 1);
    expect((await collectNow(repository)).unexplained).toHaveLength(1);
    clock.advance(1);
    const report = await collectNow(repository);
    expect(report).toMatchObject({ state: "done", unexplained: [] });
    expect(await keysOf(store)).not.toContain(rootKey);
    expect((await keysOf(store, "packs/")).length).toBeLessThan(packs);
    expect(await restoreAll(repository, disks)).toEqual(["b/1"]);
  });

  test("a dry run shows it and notes nothing", async () => {
    const { clock, repository, rootKey } = await bereaved(() => true);
    expect((await collectNow(repository, { isDryRun: true })).unexplained).toMatchObject([
      { rootKey },
    ]);
    clock.advance(2 * unexplainedRootMs);
    expect((await collectNow(repository)).unexplained).toMatchObject([{ rootKey }]);
  });

  test("another host's clock counts a little less", async () => {
    const { clock, repository } = await bereaved(() => true);
    await collectNow(repository, { observer: "another" });
    clock.advance(unexplainedRootMs);
    expect((await collectNow(repository)).unexplained).toHaveLength(1);
  });
});

test("a late root of which the records are gone stops no collection", async () => {
  const { store, repository, rootKey, disks } = await bereaved(() => true);
  const { disks: its } = await repository.readPoint(rootKey);
  await store.remove(its.map(({ recordKey }) => recordKey));
  const report = await collectNow(repository);
  expect(report).toMatchObject({ state: "done", unexplained: [{ rootKey }], missingPacks: [] });
  expect(await restoreAll(repository, disks)).toEqual(["b/1"]);
});

test("a record that cannot be read stops it: what it needs is not known", async () => {
  const { store, repository, rootKey } = await bereaved(() => true);
  const { disks: its } = await repository.readPoint(rootKey);
  const [{ recordKey } = { recordKey: "" }] = its;
  await store.remove([recordKey]);
  await store.put(recordKey, new Uint8Array(100));
  await expect(collectNow(repository)).rejects.toSatisfy(
    (error) => error instanceof Failure && error.code === "collect.damaged",
  );
});
