import { isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { type CompactOptions, compact } from "@holdfast/shared/repository/maintenance/compact";
import type { CompactReport } from "@holdfast/shared/repository/maintenance/compact-report";
import { openRepositoryKeys, type Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import fc from "fast-check";
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
  pauseAt,
  restoreAll,
} from "./test-collect.ts";
import { beginSession, createTestRepository, passphrase } from "./test-repository.ts";
import { verify } from "./test-verify.ts";

function compactNow(
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

/** All that `work` does happens as the call of that number is about to be made. */
function interrupted(store: ObjectStore, call: number, work: () => Promise<unknown>): ObjectStore {
  return hookedStore(store, async (number) => {
    if (number === call) await work();
  });
}

describe("compaction beside others", () => {
  test("a restore goes on while the packs that it reads are moved under its feet, twice", async () => {
    const base = await forgottenFirst();
    let calls = 0;
    const counted = hookedStore(await copyStore(base), async (number) => {
      calls = number;
    });
    await restoreAll(await openAt(counted, createTestClock()), kept);
    let moved = 0;
    for (let call = 1; call <= calls + 8; call += 1) {
      const store = await copyStore(base);
      const other = await openAt(store, createTestClock());
      const compactAll = async (): Promise<void> => {
        moved += (await compactNow(other, { share: 1 })).removed.packs;
      };
      const twice = interrupted(interrupted(store, call, compactAll), call + 6, compactAll);
      expect(await restoreAll(await openAt(twice, createTestClock()), kept)).toEqual(["a/p2"]);
    }
    expect(moved).toBeGreaterThan(calls);
  });

  test("in all orders of their steps an incremental restores whose parent is compacted, or has failed", async () => {
    const base = await forgottenFirst();
    const third = diskOf(1, 22, 33, 24, 35, 26, 27, 8);
    const steps = async (work: (store: ObjectStore) => Promise<unknown>): Promise<number[]> => {
      const found: number[] = [];
      const store = hookedStore(await copyStore(base), async (number, what) => {
        if (/^(put|list|remove|head)/.test(what)) found.push(number);
      });
      await work(store);
      return found;
    };
    const more = { vm: "a", pointId: "p3", disk: third };
    const compacting = await steps(async (store) =>
      compactNow(await openAt(store, createTestClock())),
    );
    const writing = await steps(async (store) =>
      backUp(await openAt(store, createTestClock()), more),
    );
    let succeeded = 0;
    let moved = 0;
    for (const pausedAt of compacting) {
      for (const writtenTo of writing) {
        if ((pausedAt + writtenTo) % 29 !== 0) continue;
        const store = await copyStore(base);
        const pause = pauseAt(store, writtenTo);
        let backup: Promise<string | Error> | undefined;
        const paused = interrupted(store, pausedAt, async () => {
          backup = openAt(pause.store, createTestClock())
            .then((writer) => backUp(writer, more))
            .catch((error: Error) => error);
          await Promise.race([backup, pause.reached]);
        });
        const report = await compactNow(await openAt(paused, createTestClock()));
        pause.release();
        const outcome = await backup;
        const repository = await openAt(store, createTestClock());
        moved += report.moved.records;
        moved += (await compactNow(repository)).moved.records;
        await collectNow(repository);
        const restored = await restoreAll(repository, new Map([...kept, ["a/p3", third]]));
        if (typeof outcome === "string") {
          succeeded += 1;
          expect(restored).toEqual(["a/p2", "a/p3"]);
        } else if (!isFailure(outcome, "index.stale")) {
          throw outcome ?? new Error("the backup never began");
        }
      }
    }
    expect(succeeded).toBeGreaterThan(15);
    expect(moved).toBeGreaterThan(15);
  });

  test("what was moved is found by the next backup, at its new place", async () => {
    const store = await forgottenFirst();
    const repository = await openAt(store, createTestClock());
    const packs = new Set(await keysOf(store, "packs/"));
    await compactNow(repository, { share: 1 });
    const [left] = (await keysOf(store, "packs/")).filter((key) => packs.has(key));
    expect(left).toBeUndefined();
    const rootKey = await backUp(repository, { vm: "b", pointId: "p4", disk: second });
    const { disks } = await repository.readPoint(rootKey);
    expect(disks.map(({ bytesNew }) => bytesNew)).toEqual([0]);
    expect(await restoreAll(repository, new Map([...kept, ["b/p4", second]]))).toHaveLength(2);
  });

  test("a session that began before is waited for, by this run or the next", async () => {
    const store = await forgottenFirst();
    const repository = await openAt(store, createTestClock());
    const session = await beginSession(repository, { silenceSeconds: 7200 });
    const packs = await keysOf(store, "packs/");
    const report = await compactNow(repository);
    expect([report.state, report.removed.packs]).toEqual(["waiting", 0]);
    expect(report.waitingFor.map(({ sessionId }) => sessionId)).toEqual([session.sessionId]);
    expect(await keysOf(store, "packs/")).toEqual(packs);
    const collected = await collectNow(repository);
    expect([collected.state, collected.earlier.lists]).toEqual(["done", 0]);
    await session.abort();
    const next = await compactNow(repository);
    expect([next.state, next.chosen.packs]).toEqual(["done", 0]);
    expect(next.removed.packs).toBe(report.chosen.packs);
    expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
  });
});

describe("what stays as it is", () => {
  test("the brake stops a run that would give up more than half of what is stored", async () => {
    const store = await forgottenFirst();
    const repository = await openAt(store, createTestClock());
    const before = await keysOf(store, "packs/");
    const run = compactNow(repository, { allowShare: 0.01 });
    await expect(run).rejects.toMatchObject({ code: "collect.brake" });
    expect(await keysOf(store, "packs/")).toEqual(before);
    expect(await keysOf(store, "condemned/list")).toEqual([]);
    const planned = await compactNow(repository, { allowShare: 0.01, isDryRun: true });
    expect(planned.brake).toContain("--allow-share");
  });

  test("a pack of which a needed record is damaged stays, named; the others go", async () => {
    const store = await forgottenFirst();
    const repository = await openAt(store, createTestClock());
    const sizes = new Map<string, number>();
    for await (const { key, sizeBytes } of store.list("packs/")) sizes.set(key, sizeBytes);
    const [largest = ""] = [...sizes.keys()].sort(
      (left, right) => (sizes.get(right) ?? 0) - (sizes.get(left) ?? 0),
    );
    const bytes = Uint8Array.from(await store.get(largest));
    bytes.fill(0xff, 64, bytes.length - 2000);
    await store.remove([largest]);
    await store.put(largest, bytes);
    const report = await compactNow(repository, { share: 1 });
    expect(report.left.damaged.map(({ name }) => name)).toEqual([largest]);
    expect(report.removed.packs).toBe(sizes.size - 1);
    expect(await keysOf(store, largest)).toEqual([largest]);
    expect(await keysOf(store, "condemned/list")).toHaveLength(1);
  });

  test("a root that cannot be read stops it", async () => {
    const store = await forgottenFirst();
    const [root = ""] = await keysOf(store, "points/a/");
    const bytes = Uint8Array.from(await store.get(root));
    bytes.fill(1, 90, 100);
    await store.remove([root]);
    await store.put(root, bytes);
    const run = compactNow(await openAt(store, createTestClock()));
    await expect(run).rejects.toMatchObject({ code: "collect.damaged" });
  });
});

test("R28: a listing that lacks a relocation stops a collection, which would take away what moved", async () => {
  const store = await forgottenFirst();
  const repository = await openAt(store, createTestClock());
  await compactNow(repository, { share: 1 });
  const packs = await keysOf(store, "packs/");
  for (const hidden of await keysOf(store, "relocations/")) {
    const stale: ObjectStore = {
      ...store,
      async *list(prefix, options) {
        const isWide = prefix === "" || prefix === "relocations/";
        for await (const head of store.list(prefix, options)) {
          if (!isWide || head.key !== hidden) yield head;
        }
      },
    };
    const run = collectNow(await openAt(stale, createTestClock()));
    await expect(run).rejects.toMatchObject({ code: "storage.unreachable" });
    expect(await keysOf(store, "packs/")).toEqual(packs);
  }
  expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
});

describe("resealing", () => {
  test("after it the old master opens no record of any pack, and all points restore", async () => {
    const store = await forgottenFirst();
    const old = await openAt(store, createTestClock());
    const keys = await openRepositoryKeys({
      store,
      passphrase,
      clock: createTestClock(),
      random: systemRandom,
    });
    await keys.rotate();
    const repository = await openAt(store, createTestClock());
    const { activeEpoch } = repository.secrets;
    expect(activeEpoch).toBeGreaterThan(old.secrets.activeEpoch);
    const before = await keysOf(store, "packs/");
    expect((await compactNow(repository, { share: 0.01 })).chosen.packs).toBe(0);
    const report = await compactNow(repository, { reseal: true });
    expect([report.old.packs, report.removed.packs]).toEqual([before.length, before.length]);
    const packs = await keysOf(store, "packs/");
    expect(packs.length).toBeGreaterThan(0);
    for (const key of [...packs, ...(await keysOf(store, "index/"))]) {
      const { epoch } = decodeEpochOf(await store.get(key));
      expect([key, epoch]).toEqual([key, activeEpoch]);
    }
    const again = await compactNow(repository, { reseal: true });
    expect([again.old.packs, again.chosen.packs]).toEqual([0, 0]);
    expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
    await collectNow(repository);
    expect(await restoreAll(repository, kept)).toEqual(["a/p2"]);
    // Who has the old master alone reads what the point says, and nothing of what the disk holds.
    await expect(restoreAll(old, kept)).rejects.toThrow();
  });
});

/** Every object says in its header under which epoch it is sealed. */
function decodeEpochOf(bytes: Uint8Array): { readonly epoch: number } {
  return { epoch: Buffer.from(bytes).readUInt32LE(12) };
}

test("random points, forgets and compactions: what is kept restores at every moment", async () => {
  const operation = fc.oneof(
    fc.record({
      do: fc.constant("back up" as const),
      vm: fc.constantFrom("a", "b"),
      parts: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
    }),
    fc.record({ do: fc.constant("forget" as const), which: fc.nat(9) }),
    fc.record({
      do: fc.constant("compact" as const),
      share: fc.constantFrom(0.3, 0.6, 1),
      killedAt: fc.option(fc.integer({ min: 5, max: 120 })),
    }),
  );
  const run = fc.asyncProperty(
    fc.array(operation, { minLength: 6, maxLength: 14 }),
    async (operations) => {
      const store = createMemoryObjectStore();
      await createTestRepository(store);
      const clock = createTestClock();
      const points = new Map<string, { readonly rootKey: string; readonly disk: Uint8Array }>();
      const repository = await openAt(store, clock);
      const check = async (): Promise<void> => {
        const disks = new Map([...points].map(([name, { disk }]) => [name, disk]));
        expect((await restoreAll(repository, disks)).toSorted()).toEqual(
          [...points.keys()].toSorted(),
        );
      };
      for (const [number, one] of operations.entries()) {
        if (one.do === "back up") {
          const disk = diskOf(...one.parts);
          const pointId = `p${String(number).padStart(2, "0")}`;
          const rootKey = await backUp(repository, { vm: one.vm, pointId, disk });
          points.set(`${one.vm}/${pointId}`, { rootKey, disk });
        } else if (one.do === "forget") {
          const name = [...points.keys()][one.which];
          if (name === undefined) continue;
          const expire = [points.get(name)?.rootKey ?? ""];
          points.delete(name);
          const more = { expire, waitMs: 1_200_000, allowEmpty: true };
          const report = await collectNow(repository, more);
          expect(report.missingPacks).toEqual([]);
        } else {
          const killed = hookedStore(store, async (call) => {
            if (one.killedAt !== null && call >= one.killedAt) throw new Error("killed");
          });
          const compacting = openAt(killed, clock).then((its) =>
            compactNow(its, { share: one.share, waitMs: 1_200_000, allowEmpty: true }),
          );
          const [outcome] = await Promise.allSettled([compacting]);
          if (outcome.status === "rejected" && one.killedAt === null) throw outcome.reason;
        }
        await check();
      }
      const end = { waitMs: 1_200_000, allowEmpty: true };
      await compactNow(repository, end);
      await collectNow(repository, end);
      await check();
      const verified = await verify(repository, {});
      expect([verified.damagedPoints, verified.damagedObjects]).toEqual([[], []]);
      expect(await keysOf(store, "condemned/list")).toEqual([]);
    },
  );
  await fc.assert(run, { numRuns: 10 });
});
