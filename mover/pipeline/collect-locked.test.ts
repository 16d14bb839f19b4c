import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
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

const first = diskOf(1, 2, 3, 4);
const second = diskOf(5, 6, 3, 4);
const dayMs = 86_400_000;

async function setUp() {
  const clock = createTestClock();
  const store = createMemoryObjectStore({ lockClock: clock });
  await createTestRepository(store);
  const repository = await openAt(store, clock);
  const old = await backUp(repository, { vm: "a", pointId: "p1", disk: first });
  const own = old.slice(-32, -16);
  const packs = (await keysOf(store, "packs/")).filter((key) => key.includes(`/${own}`));
  await backUp(repository, { vm: "a", pointId: "p2", disk: second });
  const lock = async (key: string, days: number): Promise<void> =>
    await store.locks?.extend(key, {
      mode: "compliance",
      untilMs: clock.now() + days * dayMs,
    });
  return { clock, store, repository, old, packs, lock };
}

const both = new Map([
  ["a/p1", first],
  ["a/p2", second],
]);

test("a root that is locked stays a point with all that it needs, and goes after its date", async () => {
  const { clock, store, repository, old, lock } = await setUp();
  await lock(old, 10);
  const packs = await keysOf(store, "packs/");
  const report = await collectNow(repository, { expire: [old] });
  expect(report).toMatchObject({ state: "locked", locked: [{ key: old }] });
  expect(report.locked[0]?.until).toBe(new Date(clock.now() + 10 * dayMs).toISOString());
  expect(await keysOf(store, "packs/")).toEqual(packs);
  const { disks } = await repository.readPoint(old);
  expect(disks).toHaveLength(1);
  // It stays condemned, and nothing else does.
  expect((await collectNow(repository)).state).toBe("locked");
  expect(await keysOf(store, "condemned/list")).toHaveLength(1);
  expect(await restoreAll(repository, both)).toEqual(["a/p2"]);
  clock.advance(11 * dayMs);
  expect((await collectNow(repository)).state).toBe("done");
  expect(await keysOf(store, old)).toEqual([]);
  expect(await keysOf(store, "condemned/list")).toEqual([]);
  expect((await keysOf(store, "packs/")).length).toBeLessThan(packs.length);
  expect(await restoreAll(repository, both)).toEqual(["a/p2"]);
});

test("a pack that is locked is not used any more, and goes after its date", async () => {
  const { clock, store, repository, old, packs, lock } = await setUp();
  // Shared with no other point: it may go once it is free.
  const sizes = await Promise.all(
    packs.map(async (key) => (await store.head(key))?.sizeBytes ?? 0),
  );
  const smallest = packs[sizes.indexOf(Math.min(...sizes))] ?? "";
  await lock(smallest, 10);
  const report = await collectNow(repository, { expire: [old] });
  expect(report.locked.map(({ key }) => key)).toEqual([smallest]);
  expect(await keysOf(store, old)).toEqual([]);
  expect(await store.head(smallest)).toBeDefined();
  await backUp(repository, { vm: "b", pointId: "p3", disk: first });
  clock.advance(11 * dayMs);
  await collectNow(repository);
  expect(await store.head(smallest)).toBeUndefined();
  expect(await restoreAll(repository, new Map([...both, ["b/p3", first]]))).toHaveLength(2);
});

test("while an object of the index is locked, the packs that it names stay condemned", async () => {
  const { clock, store, repository, old, lock } = await setUp();
  const packs = await keysOf(store, "packs/");
  for (const key of await keysOf(store, "index/")) await lock(key, 10);
  const other = diskOf(9);
  const [, newer = ""] = [...(await keysOf(store, "points/"))].sort();
  await backUp(repository, { vm: "c", pointId: "p4", disk: other });
  const report = await collectNow(repository, { expire: [old, newer] });
  expect(report.state).toBe("locked");
  expect((await keysOf(store, "packs/")).length).toBeGreaterThanOrEqual(packs.length);
  // Who backs up the same again stores it again.
  await backUp(repository, { vm: "b", pointId: "p3", disk: first });
  clock.advance(11 * dayMs);
  expect((await collectNow(repository)).state).toBe("done");
  const all = new Map([
    ["b/p3", first],
    ["c/p4", other],
  ]);
  expect(await restoreAll(repository, all)).toHaveLength(2);
  for (const key of packs) expect(await store.head(key)).toBeUndefined();
});

test("a condemned list that does not open keeps sessions from beginning until the operator drops it", async () => {
  const { store, repository, old } = await setUp();
  const name = await repository.sessions.condemned.put({
    madeAt: 1,
    roots: [old],
    packs: [],
    compacting: [],
    objects: [],
  });
  const bytes = await store.get(name);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  await store.remove([name]);
  await store.put(name, bytes);
  const fresh = await openAt(store, createTestClock());
  await expect(backUp(fresh, { vm: "b", pointId: "p3", disk: first })).rejects.toMatchObject({
    code: "object.corrupt",
  });
  await expect(collectNow(fresh)).rejects.toMatchObject({ code: "object.corrupt" });
  expect((await collectNow(fresh, { dropDamagedLists: true })).state).toBe("done");
  await backUp(fresh, { vm: "b", pointId: "p3", disk: first });
  expect(await restoreAll(fresh, new Map([...both, ["b/p3", first]]))).toHaveLength(3);
});
