import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeAll, describe, expect, test } from "vitest";
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
  transferIn,
} from "./test-collect.ts";
import { beginSession, createTestRepository } from "./test-repository.ts";

const first = diskOf(1, 2, 3, 4);
const second = diskOf(1, 2, 7, 4);
const third = diskOf(1, 6, 7, 4);
const other = diskOf(8, 9, 1);

/** Two points of `a`, one of `b`, and what a failed backup left. `old` is the first of `a`. */
let base: ObjectStore;
let old: string;
beforeAll(async () => {
  base = createMemoryObjectStore();
  await createTestRepository(base);
  const repository = await openAt(base, createTestClock());
  old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
  await backUp(repository, { vm: "a", pointId: "p2", disk: second });
  await backUp(repository, { vm: "b", pointId: "p3", disk: other });
  const failed = await beginSession(repository);
  await transferIn(repository, failed, undefined, diskOf(11, 12));
  await failed.abort();
});

const kept = new Map([
  ["a/p2", second],
  ["b/p3", other],
]);
const all = new Map([["a/p1", first], ...kept]);
/** Longer than a collector that died may be silent. */
const waitMs = 1_200_000;

async function countCalls(work: (store: ObjectStore) => Promise<unknown>): Promise<string[]> {
  const calls: string[] = [];
  const store = hookedStore(await copyStore(base), async (_, what) => void calls.push(what));
  await work(store);
  return calls;
}

describe("a collection that is interrupted", () => {
  test("R24: killed after any store call, the next run completes, and every listed point restores", async () => {
    const calls = await countCalls(async (store) =>
      collectNow(await openAt(store, createTestClock()), { expire: [old] }),
    );
    const clean = await copyStore(base);
    await collectNow(await openAt(clean, createTestClock()), { expire: [old] });
    const packs = await keysOf(clean, "packs/");
    expect(calls.length).toBeGreaterThan(40);
    for (const effect of ["before", "after"]) {
      for (let killedAt = 4; killedAt <= calls.length; killedAt += 1) {
        const store = await copyStore(base);
        const killed = hookedStore(store, async (number, what) => {
          if (number < killedAt) return;
          if (number === killedAt && effect === "after") await applyLast(store, what);
          throw new Error("killed");
        });
        const run = openAt(killed, createTestClock()).then((its) =>
          collectNow(its, { expire: [old] }),
        );
        // What fails after all is done only leaves the session open.
        const [outcome] = await Promise.allSettled([run]);
        if (outcome.status === "rejected")
          expect(outcome.reason).toMatchObject({ message: "killed" });
        const repository = await openAt(store, createTestClock());
        await restoreAll(repository, all);
        const report = await collectNow(repository, { expire: [old], waitMs });
        expect(report.state).toBe("done");
        expect(await restoreAll(repository, kept)).toEqual(["a/p2", "b/p3"]);
        expect(await keysOf(store, "condemned/list")).toEqual([]);
        expect(await keysOf(store, "packs/")).toEqual(packs);
      }
    }
  });

  test("a removal of many that was cut in the middle is completed", async () => {
    for (let cut = 1; cut < 12; cut += 1) {
      const store = await copyStore(base);
      let left = cut;
      const cutting: ObjectStore = {
        ...store,
        remove: async (keys, options) => {
          for (const key of keys) {
            left -= 1;
            if (left < 0) throw new Error("killed");
            await store.remove([key], options);
          }
        },
      };
      const run = collectNow(await openAt(cutting, createTestClock()), { expire: [old] });
      await expect(run).rejects.toThrow("killed");
      const repository = await openAt(store, createTestClock());
      await collectNow(repository, { expire: [old], waitMs });
      expect(await restoreAll(repository, kept)).toHaveLength(2);
      expect(await keysOf(store, old)).toEqual([]);
    }
  });
});

/** What the killed process's last call had done before its answer was lost; only removals are told apart by it. */
async function applyLast(store: ObjectStore, what: string): Promise<void> {
  if (what.startsWith("remove ")) await store.remove(what.slice("remove ".length).split(" "));
}

describe("R22: a collection beside an incremental whose parent is pruned", () => {
  test("in all orders of their steps the new point restores, or the backup has failed", async () => {
    const isStep = (what: string): boolean => /^(put|list|remove|head)/.test(what);
    const collecting = await countCalls(async (store) =>
      collectNow(await openAt(store, createTestClock()), { expire: [old] }),
    );
    const steps = (calls: readonly string[]): readonly number[] =>
      calls.flatMap((what, at) => (isStep(what) ? [at + 1] : []));
    const writing = await countCalls(async (store) =>
      backUp(await openAt(store, createTestClock()), { vm: "a", pointId: "p4", disk: third }),
    );
    let succeeded = 0;
    for (const pausedAt of steps(collecting)) {
      for (const writtenTo of [...steps(writing), Number.POSITIVE_INFINITY]) {
        if ((pausedAt + writtenTo) % 5 !== 0 && writtenTo !== Number.POSITIVE_INFINITY) continue;
        const store = await copyStore(base);
        const pause = pauseAt(store, writtenTo);
        let backup: Promise<string | Error> | undefined;
        const paused = hookedStore(store, async (number) => {
          if (number !== pausedAt) return;
          backup = openAt(pause.store, createTestClock())
            .then((writer) => backUp(writer, { vm: "a", pointId: "p4", disk: third }))
            .catch((error: Error) => error);
          await Promise.race([backup, pause.reached]);
        });
        // Both of `a` are pruned: whichever the backup builds on.
        const newest = (await keysOf(store, "points/a/")).filter((key) => key !== old);
        const expire = [old, ...newest];
        await collectNow(await openAt(paused, createTestClock()), { expire });
        pause.release();
        const outcome = await backup;
        const repository = await openAt(store, createTestClock());
        await collectNow(repository, { expire });
        await collectNow(repository);
        const expected = new Map([...all, ["a/p4", third]]);
        const restored = await restoreAll(repository, expected);
        if (typeof outcome === "string") {
          succeeded += 1;
          expect(restored).toContain("a/p4");
        } else if (!isFailure(outcome, "object.not-found") && !isFailure(outcome, "index.stale")) {
          throw outcome ?? new Error("the backup never began");
        }
        expect(restored).toContain("b/p3");
      }
    }
    expect(succeeded).toBeGreaterThan(60);
  });
});

describe("a store that is not as it should be", () => {
  test("R28: a listing that lacks a root which an end names stops the collection", async () => {
    const store = await copyStore(base);
    const stale = listing(store, (heads) =>
      heads.filter(({ key }) => !key.startsWith("points/b/")),
    );
    const run = collectNow(await openAt(stale, createTestClock()), { expire: [old] });
    await expect(run).rejects.toThrow(/the listing of .* lacks points\/b\//);
    expect(await restoreAll(await openAt(store, createTestClock()), all)).toHaveLength(3);
  });

  test("R28: a session that the listing lacks is looked at by itself", async () => {
    const store = await copyStore(base);
    const repository = await openAt(store, createTestClock());
    const session = await beginSession(repository);
    await transferIn(repository, session, undefined, diskOf(20, 21));
    const before = await keysOf(store, "packs/");
    const stale = listing(store, (heads, prefix) =>
      heads.filter(
        ({ key }) =>
          !key.includes(session.sessionId) || prefix.length > 9 || key.startsWith("packs/"),
      ),
    );
    const run = collectNow(await openAt(stale, createTestClock()));
    await expect(run).rejects.toThrow(/the listing of .* lacks sessions\//);
    expect(await keysOf(store, "packs/")).toEqual(before);
  });

  test("entries doubled and out of order change nothing", async () => {
    const plain = await copyStore(base);
    await collectNow(await openAt(plain, createTestClock()), { expire: [old] });
    const store = await copyStore(base);
    const odd = listing(store, (heads) => heads.flatMap((head) => [head, head]).reverse());
    const report = await collectNow(await openAt(odd, createTestClock()), { expire: [old] });
    expect(report.state).toBe("done");
    expect(await keysOf(store, "packs/")).toEqual(await keysOf(plain, "packs/"));
    expect(await restoreAll(await openAt(store, createTestClock()), kept)).toHaveLength(2);
  });

  test("a root or record that does not open stops the collection; who gives the point up can go on", async () => {
    const { disks } = await (await openAt(base, createTestClock())).readPoint(old);
    for (const damaged of [old, disks[0]?.recordKey ?? ""]) {
      const store = await copyStore(base);
      const bytes = await store.get(damaged);
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      await store.remove([damaged]);
      await store.put(damaged, bytes);
      const repository = await openAt(store, createTestClock());
      const before = await keysOf(store, "packs/");
      await expect(collectNow(repository)).rejects.toMatchObject({ code: "collect.damaged" });
      expect(await keysOf(store, "packs/")).toEqual(before);
      expect((await collectNow(repository, { expire: [old] })).state).toBe("done");
      expect(await restoreAll(repository, kept)).toHaveLength(2);
    }
  });

  test("R38: without space for anything large, and then for anything at all, space is freed", async () => {
    for (const bytesMax of [1200, 500]) {
      const store = await copyStore(base);
      const full: ObjectStore = {
        ...store,
        put: async (key, bytes, options) => {
          if (bytes.length > bytesMax) throw noSpace(key);
          await store.put(key, bytes, options);
        },
      };
      const before = await keysOf(store, "packs/");
      await collectNow(await openAt(full, createTestClock()), { expire: [old] });
      expect((await keysOf(store, "packs/")).length).toBeLessThan(before.length);
      expect(await restoreAll(await openAt(store, createTestClock()), kept)).toHaveLength(2);
    }
    // Nothing can be put until something is removed; what a failed backup left needs no list.
    const store = await copyStore(base);
    let isFull = true;
    const full: ObjectStore = {
      ...store,
      put: async (key, bytes, options) => {
        if (isFull) throw noSpace(key);
        await store.put(key, bytes, options);
      },
      remove: async (keys, options) => {
        isFull = false;
        await store.remove(keys, options);
      },
    };
    const report = await collectNow(await openAt(full, createTestClock()), { expire: [old] });
    expect(report.points.expired).toEqual([old]);
    expect(await restoreAll(await openAt(store, createTestClock()), kept)).toHaveLength(2);
  });
});

function noSpace(key: string): Failure {
  return new Failure("storage.no-space", { message: `no space for ${key}` });
}

function listing(
  store: ObjectStore,
  change: (heads: ObjectHead[], prefix: string) => ObjectHead[],
): ObjectStore {
  return {
    ...store,
    async *list(prefix, options) {
      const heads: ObjectHead[] = [];
      for await (const head of store.list(prefix, options)) heads.push(head);
      yield* change(heads, prefix);
    },
  };
}

describe("what refuses", () => {
  test("R27: a clock that is minutes off the store's refuses, with the difference", async () => {
    for (const [offMs, message] of [
      [6 * 60_000, /6 minutes ahead/],
      [-65 * 60_000, /65 minutes behind/],
      [4 * 60_000, undefined],
    ] as const) {
      const store = await copyStore(base);
      const clock = createTestClock();
      const telling: ObjectStore = {
        ...store,
        head: async (key, options) => {
          const head = await store.head(key, options);
          return head && { ...head, storedAtMs: clock.now() + offMs };
        },
      };
      const before = await keysOf(store, "packs/");
      const run = collectNow(await openAt(telling, clock), { expire: [old] });
      if (message === undefined) {
        expect((await run).state).toBe("done");
        continue;
      }
      await expect(run).rejects.toMatchObject({ code: "clock.wrong", message });
      expect(await keysOf(store, "packs/")).toEqual(before);
      // Its session has ended: the next run is not held up by it.
      await collectNow(await openAt(store, clock), { expire: [old] });
    }
  });

  test("the brake stops a run that would remove too much, of bytes or of points", async () => {
    const store = await copyStore(base);
    const repository = await openAt(store, createTestClock());
    const before = await keysOf(store, "packs/");
    const points = await keysOf(store, "points/a/");
    const brake = { code: "collect.brake" };
    const run = (more: object) => collectNow(repository, { expire: points, ...more });
    await expect(run({ allowShare: undefined })).rejects.toMatchObject(brake);
    await expect(run({ allowShare: 0.1 })).rejects.toMatchObject(brake);
    await expect(run({ allowShare: 0 })).rejects.toMatchObject({ code: "input.invalid" });
    const everything = await keysOf(store, "points/");
    await expect(run({ expire: everything })).rejects.toThrow(/no recovery point would be left/);
    expect(await keysOf(store, "packs/")).toEqual(before);
    const planned = await run({ isDryRun: true, allowShare: undefined });
    expect(planned.brake).toMatch(/--allow-share 67%/);
    expect((await run({ expire: everything, allowEmpty: true })).points.kept).toBe(0);
    expect(await keysOf(store, "packs/")).toEqual([]);
  });

  test("R48: empty, foreign and unknown names are never removed", async () => {
    const foreign = ["", "config", "keys/", "packs/", "other/thing", "../x", "index/", "points/a"];
    for (const name of foreign) {
      const store = await copyStore(base);
      const repository = await openAt(store, createTestClock());
      const { condemned } = repository.sessions;
      const list = { madeAt: 1, packs: [], compacting: [], roots: [], objects: [name] };
      await condemned.put(list);
      await expect(collectNow(repository)).rejects.toMatchObject({ code: "unsupported" });
    }
    const store = await copyStore(base);
    const strangers = ["README", "packs/zz/x", "disks/abc", "points/stray", "lifecycle/rule"];
    for (const key of strangers) await store.put(key, Uint8Array.of(1));
    const repository = await openAt(store, createTestClock());
    const report = await collectNow(repository, { expire: [old, "points/none", "", "config"] });
    expect(report.unknown.count).toBe(strangers.length);
    for (const key of strangers) expect(await store.head(key)).toBeDefined();
    expect(report.points.expired).toEqual([old]);
  });
});
