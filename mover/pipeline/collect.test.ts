import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  createTestClock,
  diskOf,
  hookedStore,
  keysOf,
  openAt,
  restoreAll,
  transferIn,
} from "./test-collect.ts";
import { beginSession, createTestRepository, newPoint } from "./test-repository.ts";

async function setUp() {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const clock = createTestClock();
  return { store, clock, repository: await openAt(store, clock) };
}

const first = diskOf(1, 2, 3, 4, 5, 6);
const second = diskOf(1, 2, 3, 7, 5, 6);
const other = diskOf(8, 9, 1);

describe("garbage collection", () => {
  test("what no point needs goes, what a point needs stays", async () => {
    const { store, repository } = await setUp();
    const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
    await backUp(repository, { vm: "a", pointId: "p2", disk: second });
    await backUp(repository, { vm: "b", pointId: "p3", disk: other });
    const quiet = await collectNow(repository);
    expect(quiet).toMatchObject({ state: "done", removed: { objects: 0 }, points: { kept: 3 } });
    const before = await keysOf(store, "packs/");
    const report = await collectNow(repository, { expire: [old] });
    expect(report.state).toBe("done");
    expect(report.points).toMatchObject({ kept: 2, expired: [old] });
    expect(report.removed.objects).toBeGreaterThan(4);
    const after = await keysOf(store, "packs/");
    expect(after.length).toBeLessThan(before.length);
    const all = new Map([
      ["a/p2", second],
      ["b/p3", other],
    ]);
    expect(await restoreAll(repository, all)).toEqual(["a/p2", "b/p3"]);
    expect(await keysOf(store, "condemned/list")).toEqual([]);
    // What is left of a collection is its own session, which the next one removes.
    await collectNow(repository);
    const rest = await keysOf(store, "sessions/");
    expect(new Set(rest.map((key) => key.split("/")[1])).size).toBe(3);
    // And a third backup finds what is there.
    await backUp(repository, { vm: "c", pointId: "p4", disk: first });
    expect(await restoreAll(repository, new Map([...all, ["c/p4", first]]))).toHaveLength(3);
  });

  test("R25: nothing of a first backup that runs for hours is condemned", async () => {
    const { clock, repository } = await setUp();
    await backUp(repository, { vm: "b", pointId: "p0", disk: other });
    const session = await beginSession(repository, { silenceSeconds: 3600 });
    const recordKey = await transferIn(repository, session, undefined, first);
    for (let hour = 0; hour < 5; hour += 1) {
      clock.advance(1_800_000);
      await session.renew();
      const report = await collectNow(repository);
      expect(report.garbage.classes.map(({ reason }) => reason)).not.toContain("no-point");
    }
    expect(await repository.readDiskRecord(recordKey)).toBeDefined();
    await repository.writePoint(session, newPoint(recordKey, { vmKey: "a", pointId: "p1" }));
    const all = new Map([
      ["a/p1", first],
      ["b/p0", other],
    ]);
    expect(await restoreAll(repository, all)).toHaveLength(2);
  });

  test("a writer that is silent is fenced by a later collection, and finds its commit refused", async () => {
    const { store, clock, repository } = await setUp();
    await backUp(repository, { vm: "b", pointId: "p0", disk: other });
    const session = await beginSession(repository, { silenceSeconds: 3600 });
    const recordKey = await transferIn(repository, session, undefined, first);
    const earlier = await collectNow(repository);
    expect(earlier.fenced).toEqual([]);
    clock.advance(3_500_000);
    expect((await collectNow(repository)).fenced).toEqual([]);
    clock.advance(200_000);
    const report = await collectNow(repository);
    expect(report.fenced).toEqual([{ sessionId: session.sessionId, adopted: [] }]);
    expect(report.garbage.classes.map(({ reason }) => reason)).toContain("no-point");
    const point = newPoint(recordKey, { vmKey: "a", pointId: "p1" });
    await expect(repository.writePoint(session, point)).rejects.toSatisfy(
      (error) => isFailure(error, "session.ended") || isFailure(error, "object.not-found"),
    );
    await collectNow(repository);
    const own = (await keysOf(store)).filter((key) => key.includes(session.sessionId));
    expect(own).toEqual([]);
    expect(await restoreAll(repository, new Map([["b/p0", other]]))).toEqual(["b/p0"]);
  });

  test("a sign of life starts the silence anew, and another host's clock gets a margin", async () => {
    const { clock, repository } = await setUp();
    const session = await beginSession(repository, { silenceSeconds: 3600 });
    await collectNow(repository);
    clock.advance(3_700_000);
    await session.renew();
    expect((await collectNow(repository)).fenced).toEqual([]);
    clock.advance(3_700_000);
    expect((await collectNow(repository, { observer: "elsewhere" })).fenced).toEqual([]);
    clock.advance(600_000);
    expect((await collectNow(repository, { observer: "elsewhere" })).fenced).toHaveLength(1);
  });

  test("a run that may wait fences within itself, by what it slept, and takes the garbage as well", async () => {
    const { store, repository } = await setUp();
    await backUp(repository, { vm: "b", pointId: "p0", disk: other });
    const packs = await keysOf(store, "packs/");
    const session = await beginSession(repository, { silenceSeconds: 600 });
    await transferIn(repository, session, undefined, first);
    const report = await collectNow(repository, { waitMs: 900_000 });
    expect(report).toMatchObject({ state: "done", fenced: [{ sessionId: session.sessionId }] });
    expect(await keysOf(store, "packs/")).toEqual(packs);
  });

  test("a root whose writer died before its end becomes a point when the session is fenced", async () => {
    const { store, repository } = await setUp();
    const dying = await openAt(
      hookedStore(store, async (_, what) => {
        if (/^put sessions\/.*\/end-/.test(what)) throw new Error("killed");
      }),
      createTestClock(),
    );
    const lost = backUp(dying, { vm: "a", pointId: "p1", disk: first });
    await expect(lost).rejects.toThrow("killed");
    expect(await restoreAll(repository, new Map())).toEqual([]);
    const report = await collectNow(repository, { waitMs: 3_600_000 });
    expect(report.fenced[0]?.adopted).toHaveLength(1);
    const all = new Map([["a/p1", first]]);
    expect(await restoreAll(repository, all)).toEqual(["a/p1"]);
    await collectNow(repository);
    expect(await restoreAll(repository, all)).toEqual(["a/p1"]);
  });

  test("what is condemned waits for sessions that were open, not for those that begin later", async () => {
    const { store, repository } = await setUp();
    const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
    await backUp(repository, { vm: "a", pointId: "p2", disk: second });
    const reader = await beginSession(repository, { kind: "restore" });
    const waiting = await collectNow(repository, { expire: [old] });
    expect(waiting).toMatchObject({
      state: "waiting",
      removed: { objects: 0 },
      waitingFor: [{ sessionId: reader.sessionId, kind: "restore", holder: "test" }],
    });
    // Condemned, so no longer shown, but still there for the reader.
    expect(await restoreAll(repository, new Map([["a/p2", second]]))).toEqual(["a/p2"]);
    await repository.readPoint(old);
    const later = await beginSession(repository);
    expect((await collectNow(repository)).state).toBe("waiting");
    await reader.abort();
    const done = await collectNow(repository);
    expect(done).toMatchObject({ state: "done", earlier: { lists: 1 } });
    expect(await keysOf(store, old)).toEqual([]);
    await later.abort();
  });

  test("a point that an open session pins is held, and goes once that has ended", async () => {
    const { repository } = await setUp();
    const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
    await backUp(repository, { vm: "a", pointId: "p2", disk: second });
    const reader = await beginSession(repository, { kind: "restore", pins: [old] });
    const held = await collectNow(repository, { expire: [old] });
    expect(held.points).toMatchObject({ held: [old], expired: [], kept: 2 });
    await reader.abort();
    expect((await collectNow(repository, { expire: [old] })).points.expired).toEqual([old]);
  });

  test("what is needed again by a session that was waited for is reprieved", async () => {
    const { store, repository } = await setUp();
    await backUp(repository, { vm: "b", pointId: "p0", disk: other });
    // Stored by a backup that failed: garbage, but in the index.
    const failed = await beginSession(repository);
    await transferIn(repository, failed, undefined, first);
    await failed.abort();
    const session = await beginSession(repository);
    const recordKey = await transferIn(repository, session, undefined, first);
    expect((await collectNow(repository)).state).toBe("waiting");
    await repository.writePoint(session, newPoint(recordKey, { vmKey: "a", pointId: "p1" }));
    const report = await collectNow(repository);
    expect(report.state).toBe("done");
    expect(report.reprieved).toBeGreaterThan(0);
    const all = new Map([
      ["a/p1", first],
      ["b/p0", other],
    ]);
    expect(await restoreAll(repository, all)).toHaveLength(2);
    // It stays condemned while it is there: a collector that slept since it found it needless may yet remove it.
    const { condemned } = await beginSession(repository);
    expect(condemned.packs.size).toBe(report.reprieved);
    for (const packId of condemned.packs) {
      expect(await keysOf(store, `packs/${packId.slice(0, 2)}/${packId}`)).toHaveLength(1);
    }
  });

  test("what was reprieved goes with the last point that needs it, and its list with it", async () => {
    const { store, repository } = await setUp();
    await backUp(repository, { vm: "b", pointId: "p0", disk: other });
    const failed = await beginSession(repository);
    await transferIn(repository, failed, undefined, first);
    await failed.abort();
    const session = await beginSession(repository);
    const recordKey = await transferIn(repository, session, undefined, first);
    await collectNow(repository);
    const point = newPoint(recordKey, { vmKey: "a", pointId: "p1" });
    const { rootKey } = await repository.writePoint(session, point);
    expect((await collectNow(repository)).reprieved).toBeGreaterThan(0);
    expect((await collectNow(repository, { expire: [rootKey] })).state).toBe("done");
    expect(await keysOf(store, "condemned/list")).toEqual([]);
    expect(await restoreAll(repository, new Map([["b/p0", other]]))).toHaveLength(1);
  });

  test("the note of a list that is gone goes, too", async () => {
    const { store, repository } = await setUp();
    const { condemned } = repository.sessions;
    const nothing = { madeAt: 0, roots: [], packs: [], compacting: [], objects: [] };
    const listName = await condemned.put(nothing);
    await condemned.putWaited(listName, []);
    await store.remove([listName]);
    await collectNow(repository);
    expect(await keysOf(store, "condemned/waited")).toEqual([]);
  });

  test("R26: of three at once one works, the others say who is busy", async () => {
    for (let round = 0; round < 10; round += 1) {
      const { store, repository } = await setUp();
      const old = await backUp(repository, { vm: "a", pointId: "p1", disk: other });
      await backUp(repository, { vm: "a", pointId: "p2", disk: second });
      const repositories: Repository[] = [];
      for (let opened = 0; opened < 3; opened += 1) {
        repositories.push(await openAt(store, createTestClock()));
      }
      const runs = await Promise.allSettled(
        repositories.map((its, number) =>
          collectNow(its, { holder: `collector ${number}`, expire: [old] }),
        ),
      );
      expect(runs.filter(({ status }) => status === "fulfilled").length).toBe(1);
      for (const run of runs) {
        if (run.status === "fulfilled") expect(run.value.points.expired).toEqual([old]);
        else expect(run.reason).toMatchObject({ code: "busy" });
      }
      expect(await restoreAll(repository, new Map([["a/p2", second]]))).toEqual(["a/p2"]);
    }
  });

  test("a dry run writes nothing, and says the same as the run", async () => {
    const { store, repository } = await setUp();
    const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
    await backUp(repository, { vm: "a", pointId: "p2", disk: second });
    const before = await keysOf(store);
    const planned = await collectNow(repository, { expire: [old], isDryRun: true });
    expect(await keysOf(store)).toEqual(before);
    const done = await collectNow(repository, { expire: [old] });
    expect(done.garbage).toEqual(planned.garbage);
    expect(done.removed.bytes).toBe(planned.garbage.bytes);
    expect(planned).toMatchObject({ isDryRun: true, points: { kept: 1, expired: [old] } });
  });
});

test("a collection merges the index when it has many segments, and what others then look up is found", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const repository = await openAt(store, createTestClock());
  for (let number = 100; number < 170; number += 1) {
    await backUp(repository, { vm: `v${number}`, pointId: `p${number}`, disk: diskOf(number) });
  }
  expect((await keysOf(store, "index/")).length).toBe(70);
  const report = await collectNow(repository);
  expect(report.index.merged).toBe(70);
  expect((await keysOf(store, "index/")).length).toBe(1);
  expect((await collectNow(repository)).index.merged).toBe(0);
  const rootKey = await backUp(repository, { vm: "w", pointId: "w1", disk: diskOf(133) });
  const { disks } = await repository.readPoint(rootKey);
  expect(disks.map(({ bytesNew }) => bytesNew)).toEqual([0]);
});

test("a merge of the index that fails costs nothing", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const repository = await openAt(store, createTestClock());
  for (let number = 100; number < 170; number += 1) {
    await backUp(repository, { vm: `v${number}`, pointId: `p${number}`, disk: diskOf(number) });
  }
  const full: ObjectStore = {
    ...store,
    put: async (key, bytes, options) => {
      if (key.startsWith("index/")) throw new Failure("storage.no-space", { message: "full" });
      await store.put(key, bytes, options);
    },
  };
  const report = await collectNow(await openAt(full, createTestClock()));
  expect([report.state, report.index.merged]).toEqual(["done", 0]);
  expect((await keysOf(store, "index/")).length).toBe(70);
});
