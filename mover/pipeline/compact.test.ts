import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { type CompactOptions, compact } from "@holdfast/shared/repository/maintenance/compact";
import type { CompactReport } from "@holdfast/shared/repository/maintenance/compact-report";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  copyStore,
  createTestClock,
  diskOf,
  hookedStore,
  keysOf,
  openAt,
  restoreAll,
} from "./test-collect.ts";
import { createTestRepository } from "./test-repository.ts";
import { verify } from "./test-verify.ts";

export function compactNow(
  repository: Repository,
  more: Partial<CompactOptions> = {},
): Promise<CompactReport> {
  return compact({
    repository,
    holder: "test",
    observer: "host",
    allowShare: 1,
    logger: silentLogger,
    ...more,
  });
}

const first = diskOf(1, 2, 3, 4, 5, 6, 7, 8);
const second = diskOf(1, 22, 23, 24, 25, 26, 27, 8);

/** One point of `a` that needs a quarter of what the forgotten one has stored. */
async function forgottenFirst(): Promise<ObjectStore> {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const repository = await openAt(store, createTestClock());
  const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
  await backUp(repository, { vm: "a", pointId: "p2", disk: second });
  await collectNow(repository, { expire: [old] });
  return store;
}
const kept = new Map([["a/p2", second]]);

describe("compaction", () => {
  test("what is needed moves, the old packs go, and the point restores", async () => {
    const store = await forgottenFirst();
    const repository = await openAt(store, createTestClock());
    const before = await keysOf(store, "packs/");
    const planned = await compactNow(repository, { isDryRun: true });
    expect(await keysOf(store, "packs/")).toEqual(before);
    expect(planned.chosen.packs).toBeGreaterThan(0);
    expect(planned.removed.packs).toBe(0);
    const report = await compactNow(repository);
    expect(report.state).toBe("done");
    expect(report.chosen).toEqual(planned.chosen);
    expect(report.removed.packs).toBe(planned.chosen.packs);
    expect(report.freedBytes).toBeGreaterThan(report.chosen.neededBytes);
    expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
    expect(await keysOf(store, "condemned/list")).toEqual([]);
    const again = await compactNow(repository);
    expect([again.chosen.packs, again.written.packs, again.removed.packs]).toEqual([0, 0, 0]);
    const collected = await collectNow(repository);
    expect([collected.missingPacks, collected.garbage.bytes > 0]).toEqual([[], true]);
    expect((await collectNow(repository)).removed.bytes).toBeLessThan(4000);
    expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
    const verified = await verify(repository, {});
    expect([verified.damagedPoints, verified.damagedObjects]).toEqual([[], []]);
  });

  test("killed after any store call, the next run completes, and every point restores", async () => {
    const base = await forgottenFirst();
    const calls: string[] = [];
    const clean = await copyStore(base);
    const counted = hookedStore(clean, async (_, what) => void calls.push(what));
    await compactNow(await openAt(counted, createTestClock()));
    expect(calls.length).toBeGreaterThan(40);
    const packs = (await keysOf(clean, "packs/")).length;
    for (let killedAt = 4; killedAt <= calls.length; killedAt += 1) {
      const store = await copyStore(base);
      const killed = hookedStore(store, async (number) => {
        if (number >= killedAt) throw new Error("killed");
      });
      const [outcome] = await Promise.allSettled([
        openAt(killed, createTestClock()).then((its) => compactNow(its)),
      ]);
      if (outcome.status === "rejected") {
        expect(outcome.reason).toMatchObject({ message: "killed" });
      }
      const repository = await openAt(store, createTestClock());
      await restoreAll(repository, kept);
      const report = await compactNow(repository, { waitMs: 1_200_000 });
      expect(report.state).toBe("done");
      await collectNow(repository, { waitMs: 1_200_000 });
      expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
      expect(await keysOf(store, "condemned/list")).toEqual([]);
      expect(await keysOf(store, "packs/")).toHaveLength(packs);
    }
  });
});
