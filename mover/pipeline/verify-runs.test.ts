import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { readVerified } from "@holdfast/shared/repository/maintenance/verified";
import { readKnownDamage } from "@holdfast/shared/repository/pack/damage";
import type { Repository } from "@holdfast/shared/repository/repository";
import { expect, test } from "vitest";
import { beginSession } from "./test-repository.ts";
import { flip, replace, stored, told, verify } from "./test-verify.ts";
import type { VerifyOptions } from "./verify-repository.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const startMs = Date.parse("2026-11-20T12:00:00Z");

/** In a session of its own, as the command does. `stepMs`: time goes on with every look at the clock. */
async function run(
  repository: Repository,
  o: Partial<VerifyOptions> & { readonly nowMs?: number; readonly stepMs?: number } = {},
) {
  const { nowMs = startMs, stepMs = 0, ...options } = o;
  let looks = 0;
  const now = (): number => {
    looks += 1;
    return nowMs + looks * stepMs;
  };
  const session = await beginSession(repository, { kind: "verify" });
  try {
    const timed = { ...repository, clock: { ...repository.clock, now } };
    return await verify(timed, { session, ...options });
  } finally {
    await session.abort();
  }
}

async function names(store: ObjectStore, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

test("what was verified when is remembered: only what is due is read, and the ages are told", async () => {
  const { store, repository } = await stored();
  const packs = (await names(store, "packs/")).length;
  const first = await run(repository);
  expect(first.whole).toMatchObject({ packs, packsRead: packs, packsLeft: 0, bytesLeft: 0 });
  expect(first.whole?.notRemembered).toBeUndefined();
  expect(first.whole?.ages).toMatchObject({ day: first.whole?.bytesStored, never: 0 });

  const later = { nowMs: startMs + 3 * dayMs };
  const second = await run(repository, { ...later, whole: { everyMs: 30 * dayMs } });
  expect(second).toMatchObject({ chunksChecked: 0, damagedPoints: [], damagedObjects: [] });
  expect(second.whole).toMatchObject({ packsRead: 0, packsLeft: 0 });
  expect(second.whole?.ages).toMatchObject({ day: 0, week: first.whole?.bytesStored });

  const third = await run(repository, { ...later, whole: { everyMs: dayMs } });
  expect(third.whole).toMatchObject({ packsRead: packs });
  // A whole run reads everything, whatever was read before.
  expect((await run(repository, later)).whole).toMatchObject({ packsRead: packs });
});

test("a limit ends a run cleanly, and runs within limits read every pack in turn, once", async () => {
  const { store, repository } = await stored();
  const packs = (await names(store, "packs/")).length;
  let read = 0;
  let runs = 0;
  for (let left = packs; left > 0; runs += 1) {
    const whole = { everyMs: 30 * dayMs, bytesMax: 150_000 };
    const report = await run(repository, { whole, nowMs: startMs + runs * hourMs });
    read += report.whole?.packsRead ?? 0;
    left = report.whole?.packsLeft ?? 0;
    expect(report.whole?.bytesLeft === 0).toBe(left === 0);
  }
  expect(read).toBe(packs);
  expect(runs).toBeGreaterThan(2);
  // A budget smaller than any pack still reads one.
  const whole = { everyMs: hourMs, bytesMax: 1 };
  const next = await run(repository, { whole, nowMs: startMs + 40 * dayMs });
  expect(next.whole).toMatchObject({ packsRead: 1, packsLeft: packs - 1 });
});

test("time is a limit, too", async () => {
  const { repository } = await stored();
  const whole = { durationMs: 4 * hourMs };
  const report = await run(repository, { whole, stepMs: hourMs });
  expect(report.whole?.packsRead).toBeGreaterThan(0);
  expect(report.whole?.packsLeft).toBeGreaterThan(0);
  // What names chunks was looked at all the same.
  expect(report.points).toBe(3);
});

test("a run that was killed goes on where it was; --restart begins anew", async () => {
  const { store, repository } = await stored();
  const packs = (await names(store, "packs/")).length;
  const stop = new AbortController();
  let told = 0;
  const killed = run(repository, {
    stepMs: 61_000,
    signal: stop.signal,
    onPackProgress: ({ bytesDone, bytesTotal }) => {
      told += 1;
      if (bytesDone > bytesTotal / 2) stop.abort(new Error("killed"));
    },
  });
  await expect(killed).rejects.toSatisfy((error) => isFailure(error, "cancelled"));
  expect(told).toBeGreaterThan(1);
  const later = { nowMs: startMs + 5 * hourMs };
  const restarted = await run(repository, { ...later, whole: { restart: true, bytesMax: 1 } });
  expect(restarted.whole).toMatchObject({ packsRead: 1, packsLeft: packs - 1 });
  const resumed = await run(repository, later);
  expect(resumed.whole?.resumedFrom).toBeDefined();
  expect(resumed.whole?.packsLeft).toBe(0);
  expect(resumed.whole?.packsRead).toBeLessThan(packs);
  // That one came to its end: the next begins anew.
  const next = await run(repository, { nowMs: startMs + 6 * hourMs });
  expect(next.whole?.packsRead).toBe(packs);
  expect(next.whole?.resumedFrom).toBeUndefined();
});

test("damage is named by every run until it is gone, however little is due", async () => {
  const { store, repository, third } = await stored();
  const [entry] = await chunksOf(repository, third.recordKey);
  if (entry === undefined) throw new Error("there is a chunk");
  const before = await store.get(entry.pack);
  await replace(store, entry.pack, flip(before, entry.offset));
  const found = await run(repository);
  expect(told(found)).toEqual([["point-3", "vda", [0, entry.length]]]);
  const damage = await readKnownDamage(repository);
  expect([...damage.places.packs.keys()].map((id) => entry.pack.endsWith(id))).toEqual([true]);
  expect([...damage.points.keys()]).toEqual([third.rootKey]);
  const whole = { everyMs: 30 * dayMs, bytesMax: 1 };
  const again = await run(repository, { nowMs: startMs + hourMs, whole });
  expect(told(again)).toEqual(told(found));
  // A sample does not take away what it did not look at.
  await run(repository, { share: 0.001 });
  expect((await readKnownDamage(repository)).places.packs.size).toBe(1);
  await replace(store, entry.pack, before);
  expect(told(await run(repository, { nowMs: startMs + 2 * hourMs }))).toEqual([]);
  const after = await readKnownDamage(repository);
  expect([after.places.packs.size, after.points.size]).toEqual([0, 0]);
  expect(after.recordNames).toHaveLength(1);
});

async function chunksOf(repository: Repository, recordKey: string) {
  const { createLeafStore } = await import("@holdfast/shared/repository/extent-map/leaf-store");
  const { leafRange } = await import("@holdfast/shared/repository/extent-map/disk-records");
  const { leafEntries } = await import("@holdfast/shared/repository/extent-map/leaf");
  const { packName } = await import("@holdfast/shared/repository/pack/pack");
  const record = await repository.readDiskRecord(recordKey);
  const ref = record.leaves.get(0);
  if (ref === undefined || ref === "hole") return [];
  const { leaf } = await createLeafStore(repository).read(ref, {
    index: 0,
    ...leafRange(record, 0),
  });
  return Array.from(leafEntries(leaf), ({ pack, packOffset, length }) => ({
    pack: packName(pack.packId),
    offset: packOffset,
    length,
  }));
}

test("notes are merged when there are many, and nothing of them is forgotten", async () => {
  const { repository } = await stored();
  let packs = 0;
  for (let number = 0; number < 36; number += 1) {
    const whole = { everyMs: hourMs, bytesMax: 1 };
    const report = await run(repository, { whole, nowMs: startMs + number * hourMs });
    packs = report.whole?.packs ?? 0;
  }
  const hours = new Map<string, number>();
  const found = await readVerified(repository, ({ packId, hour }) => {
    const key = Buffer.from(packId).toString("hex");
    hours.set(key, Math.max(hours.get(key) ?? 0, hour));
  });
  expect(hours.size).toBe(packs);
  expect(found.current.length).toBeLessThan(10);
  expect(found.replaced.length).toBeGreaterThan(25);
  // Those that are replaced may go.
  await repository.store.remove(found.replaced);
  const report = await run(repository, {
    nowMs: startMs + 36 * hourMs,
    whole: { everyMs: 100 * hourMs },
  });
  expect(report.whole).toMatchObject({ packsRead: 0, packsLeft: 0 });
});

test("with credentials that may only read it works, writes nothing, and says so", async () => {
  const { store, repository } = await stored();
  const before = await names(store);
  const report = await verify(repository);
  expect(report.damagedPoints).toEqual([]);
  expect(report.whole?.notRemembered).toBeDefined();
  expect(await names(store)).toEqual(before);
  const refusing: Repository = {
    ...repository,
    store: {
      ...store,
      put: async () => {
        throw new Failure("storage.refused", { message: "no puts for you" });
      },
    },
  };
  const session = await beginSession(repository, { kind: "verify" });
  const objects = {
    ...session.objects,
    putNew: async () => {
      throw new Failure("storage.refused", { message: "no puts for you" });
    },
  };
  const refused = await verify(refusing, { session: { ...session, objects } });
  expect(refused.whole?.notRemembered).toMatch(/no puts/);
});

test("a pack that no point needs is read too; its damage costs nothing and is told", async () => {
  const { store, repository } = await stored();
  const { createMemoryReader } = await import("./memory-disk.ts");
  const { seededBytes } = await import("./test-data.ts");
  const { transfer } = await import("./test-repository.ts");
  const before = new Set(await names(store, "packs/"));
  await transfer(repository, createMemoryReader(seededBytes(50_000, 77)));
  const pack = (await names(store, "packs/")).find((name) => !before.has(name)) ?? "";
  await replace(store, pack, flip(await store.get(pack), 100));
  const report = await run(repository);
  expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
  expect(report.harmless.map(({ object }) => object)).toEqual([pack]);
  // But nobody may build on it.
  expect((await readKnownDamage(repository)).places.packs.size).toBe(1);
});

test("a damaged key beside a good one is named", async () => {
  const { store, repository } = await stored();
  const [key = ""] = await names(store, "keys/");
  const second = key.replace(/.{4}$/, "0123");
  await store.put(second, flip(await store.get(key), 50));
  const report = await verify(repository);
  expect(report.damagedObjects.map(({ object }) => object)).toEqual([second]);
});

test("a pack's footer and header are checked, and are not needed for a restore", async () => {
  const { store, repository } = await stored();
  for (const place of [20, -20, -1]) {
    const [pack = ""] = await names(store, "packs/");
    const bytes = await store.get(pack);
    await replace(store, pack, flip(bytes, place < 0 ? bytes.length + place : place));
    const report = await run(repository);
    expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
    expect(report.harmless.map(({ object }) => object)).toEqual([pack]);
    await replace(store, pack, bytes);
  }
});
