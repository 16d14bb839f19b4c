import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { extendLocks, holdPoint } from "@holdfast/shared/repository/maintenance/locks";
import { createRepository, type Repository } from "@holdfast/shared/repository/repository";
import { isOpen, sessionOfRoot } from "@holdfast/shared/repository/session/session-state";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeEach, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  createTestClock,
  diskOf,
  keysOf,
  restoreAll,
  type TestClock,
} from "./test-collect.ts";
import { passphrase, smallSettings } from "./test-repository.ts";

const dayMs = 24 * 60 * 60 * 1000;
const lock = { mode: "compliance", days: 20 } as const;
/** Half of the second is the first's. */
const disks = new Map([
  ["web/one", diskOf(1, 2, 3, 4, 5, 6)],
  ["web/two", diskOf(1, 2, 3, 7, 8, 9)],
]);
let clock: TestClock;
let store: ObjectStore;
let repository: Repository;
let roots: string[];

beforeEach(async () => {
  clock = createTestClock();
  store = createMemoryObjectStore({ lockClock: clock });
  repository = await createRepository({
    store,
    passphrase,
    lock,
    clock,
    random: systemRandom,
    logger: silentLogger,
    settings: smallSettings,
    passphraseCost: { memoryKiB: 64, passes: 1 },
  });
  roots = [];
  for (const pointId of ["one", "two"]) {
    const disk = disks.get(`web/${pointId}`) ?? new Uint8Array();
    roots.push(await backUp(repository, { vm: "web", pointId, disk }));
    clock.advance(1000);
  }
});

const extend = (dryRun = false) => extendLocks(repository, { lock, dryRun });

/** How long it lasts yet, in days, by name; what is not locked is left out. */
async function daysLeft(): Promise<ReadonlyMap<string, number>> {
  const left = new Map<string, number>();
  for (const key of await keysOf(store)) {
    const untilMs = (await store.locks?.look(key))?.retention?.untilMs;
    if (untilMs !== undefined) left.set(key, (untilMs - clock.now()) / dayMs);
  }
  return left;
}

test("what points need is locked from the start, and never for less than was promised", async () => {
  const first = await extend();
  // The two sessions' starts: only now it is known that they made points.
  expect(first).toMatchObject({ points: 2, extended: 2 });
  const names = [...(await daysLeft()).keys()];
  expect(names).toHaveLength(first.objects);
  const extended = new Map(names.map((name) => [name, 0]));
  for (let day = 0; day < 60; day += 1) {
    clock.advance(dayMs);
    const before = await daysLeft();
    const foreseen = await extend(true);
    expect(await daysLeft()).toEqual(before);
    expect(await extend()).toEqual(foreseen);
    for (const [name, days] of await daysLeft()) {
      expect(days, name).toBeGreaterThanOrEqual(lock.days);
      if (days > (before.get(name) ?? 0)) extended.set(name, (extended.get(name) ?? 0) + 1);
    }
  }
  // Once for each generation of ten days.
  expect(new Set(extended.values())).toEqual(new Set([6]));
});

test("a point that goes is kept by its locks until their date, then only what others need stays", async () => {
  const report = await collectNow(repository, { expire: roots.slice(0, 1) });
  expect(report.state).toBe("locked");
  expect(report.locked.map(({ key }) => key)).toContain(roots[0]);
  for (const { until } of report.locked) expect(until).toMatch(/^\d{4}-\d\d-\d\dT/);
  expect(await restoreAll(repository, disks)).toContain("web/two");
  const needed = await extend();
  expect(needed.points).toBe(1);
  clock.advance(45 * dayMs);
  expect((await extend()).extended).toBe(needed.objects);
  const later = await collectNow(repository);
  expect(later).toMatchObject({ state: "done", locked: [] });
  expect(await store.head(roots[0] ?? "")).toBeUndefined();
  expect(await restoreAll(repository, disks)).toEqual(["web/two"]);
  expect([...(await daysLeft()).keys()]).toHaveLength(needed.objects);
});

test("a session whose start is locked for longer than its root is not left open", async () => {
  const [rootKey = ""] = roots;
  const { sessionId = "" } = sessionOfRoot(rootKey) ?? {};
  const [start = ""] = await keysOf(store, `sessions/${sessionId}/start-`);
  const untilMs = clock.now() + 90 * dayMs;
  await store.locks?.extend(start, { mode: "compliance", untilMs });
  clock.advance(45 * dayMs);
  const report = await collectNow(repository, { expire: [rootKey] });
  expect(report.locked.map(({ key }) => key)).toEqual([start]);
  expect(await store.head(rootKey)).toBeUndefined();
  expect(isOpen((await repository.sessions.list()).get(sessionId))).toBe(false);
  clock.advance(60 * dayMs);
  expect(await collectNow(repository)).toMatchObject({ state: "done", locked: [] });
  expect(await keysOf(store, `sessions/${sessionId}/`)).toEqual([]);
});

test("a legal hold keeps a point after all dates, and ends when it is ended", async () => {
  const [rootKey = ""] = roots;
  const held = await holdPoint(repository, { rootKey, isOn: true });
  expect(held).toBeGreaterThan(5);
  expect(await holdPoint(repository, { rootKey, isOn: true })).toBe(0);
  clock.advance(45 * dayMs);
  const report = await collectNow(repository, { expire: [rootKey] });
  expect(report.locked.find(({ key }) => key === rootKey)).toEqual({
    key: rootKey,
    until: undefined,
    legalHold: true,
  });
  expect(await holdPoint(repository, { rootKey, isOn: false })).toBe(held);
  expect(await collectNow(repository)).toMatchObject({ state: "done", locked: [] });
  expect(await restoreAll(repository, disks)).toEqual(["web/two"]);
});

test("damage to one point does not leave the others unlocked", async () => {
  clock.advance(30 * dayMs);
  const [first = "", second = ""] = roots;
  const record = (await repository.readPoint(first)).disks[0]?.recordKey ?? "";
  await store.remove([record]);
  const damaged: string[] = [];
  const onDamaged = (rootKey: string): void => void damaged.push(rootKey);
  await extendLocks(repository, { lock, dryRun: false, onDamaged });
  expect(damaged).toEqual([first]);
  const left = await daysLeft();
  expect(left.get(first)).toBeGreaterThanOrEqual(lock.days);
  expect(left.get(second)).toBeGreaterThanOrEqual(lock.days);
  const { recordKey = "" } = (await repository.readPoint(second)).disks[0] ?? {};
  expect(left.get(recordKey)).toBeGreaterThanOrEqual(lock.days);
});

test("a store without locks is refused", async () => {
  const plain = { ...repository, store: createMemoryObjectStore() };
  await expect(extendLocks(plain, { lock, dryRun: true })).rejects.toMatchObject({
    code: "unsupported",
  });
});
