import type { RepairReport } from "@holdfast/shared/contracts/standalone";
import type { Extent } from "@holdfast/shared/domain/extent";
import { isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type LeafEntry, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { readKnownDamage } from "@holdfast/shared/repository/pack/damage";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader, createMemoryWriter } from "./memory-disk.ts";
import { openPointReader } from "./point-reader.ts";
import { repairRepository } from "./repair-repository.ts";
import { restoreDisk } from "./restore-disk.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  restore,
  smallSettings,
  transfer,
  writePoint,
} from "./test-repository.ts";
import { flip, objectsOf, replace, told, verify } from "./test-verify.ts";

const { leafBytes } = smallSettings;
const signal = new AbortController().signal;

type Stored = { readonly recordKey: string; readonly rootKey: string; readonly pointId: string };

/** `deduplicated`: against all that is there; otherwise all chunks are stored again. */
async function save(
  repository: Repository,
  disk: Uint8Array,
  number: number,
  o: {
    readonly deduplicated?: boolean;
    readonly previous?: string;
    /** What the source says that changed since. */
    readonly extents?: readonly Extent[];
  } = {},
): Promise<Stored> {
  const session = await beginSession(repository);
  const loader = createChunkIndexLoader(repository, { logger: silentLogger });
  const index = o.deduplicated === true ? await loader.load(session, signal) : {};
  const previous = o.previous === undefined ? {} : { previous: o.previous };
  const reader = createMemoryReader(disk, o.extents === undefined ? {} : { extents: o.extents });
  const { recordKey } = await transfer(repository, reader, { session, ...index, ...previous });
  const pointId = `point-${number}`;
  const point = newPoint(recordKey, { pointId, jobId: `job-${number}`, vmKey: `vm-${number}` });
  return { recordKey, pointId, ...(await writePoint(repository, point, session)) };
}

async function repair(
  repository: Repository,
  o: { readonly dryRun?: boolean; readonly readAll?: boolean; readonly copy?: Repository } = {},
): Promise<RepairReport> {
  const session = await beginSession(repository, { kind: "maintenance" });
  try {
    return await repairRepository({
      repository,
      session: o.dryRun === true ? undefined : session,
      readAll: o.readAll ?? true,
      ...(o.copy === undefined ? {} : { copy: o.copy }),
      onProgress: () => undefined,
      onSearch: () => undefined,
      signal,
      workers: 0,
      logger: silentLogger,
    });
  } finally {
    await session.abort();
  }
}

async function verifyAndNote(repository: Repository) {
  const session = await beginSession(repository, { kind: "verify" });
  const report = await verify(repository, { session });
  await session.abort();
  return report;
}

async function entriesOf(repository: Repository, recordKey: string): Promise<LeafEntry[]> {
  const record = await repository.readDiskRecord(recordKey);
  const entries: LeafEntry[] = [];
  for (let index = 0; index < record.leaves.count; index += 1) {
    const ref = record.leaves.get(index);
    if (ref === undefined || ref === "hole") continue;
    const place = { index, ...leafRange(record, index) };
    const { leaf } = await createLeafStore(repository).read(ref, place);
    for (const entry of leafEntries(leaf)) {
      entries.push({ ...entry, offset: place.offset + entry.offset });
    }
  }
  return entries;
}

async function restores(repository: Repository, { recordKey }: Stored, disk: Uint8Array) {
  const { bytes } = await restore(repository, recordKey, { sizeBytes: disk.length });
  expect(Buffer.compare(bytes, disk)).toBe(0);
  const reader = await openPointReader({ repository, recordKey });
  const read = new Uint8Array(disk.length);
  for (let at = 0; at < disk.length; at += 100_000) {
    await reader.read(at, read.subarray(at, Math.min(at + 100_000, disk.length)));
  }
  expect(Buffer.compare(read, disk)).toBe(0);
}

async function names(store: ObjectStore): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list("")) found.push(key);
  return found;
}

const disk = seededBytes(2 * leafBytes + 7000, 4);

test.each(["flipped chunk", "missing pack"])("a %s is found in another pack", async (how) => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, disk, 1);
  const second = await save(repository, disk, 2);
  const [entry] = await entriesOf(repository, first.recordKey);
  if (entry === undefined) throw new Error("there is a chunk");
  const pack = packName(entry.pack.packId);
  const isMissing = how === "missing pack";
  await replace(store, pack, isMissing ? undefined : flip(await store.get(pack), entry.packOffset));
  await expect(restores(repository, first, disk)).rejects.toThrow();

  const before = await names(store);
  const dry = await repair(repository, { dryRun: true });
  expect(dry).toMatchObject({ isDryRun: true, relocations: [], healedPoints: [] });
  expect(dry.recordsFound).toBe(dry.recordsBad);
  expect(dry.damagedPoints.map(({ pointId }) => pointId)).toEqual(["point-1"]);
  expect((await names(store)).filter((name) => !name.startsWith("sessions/"))).toEqual(
    before.filter((name) => !name.startsWith("sessions/")),
  );

  const report = await repair(repository);
  expect(report.recordsBad).toBeGreaterThan(isMissing ? 3 : 0);
  expect(report).toMatchObject({ recordsFound: report.recordsBad, damagedPoints: [] });
  expect(report.healedPoints.map(({ pointId }) => pointId)).toEqual(["point-1"]);
  expect(report.relocations).toHaveLength(1);
  await restores(repository, first, disk);
  await restores(repository, second, disk);
  const after = await verifyAndNote(repository);
  expect([after.damagedPoints, after.damagedObjects]).toEqual([[], []]);
  expect(after.chunksElsewhere).toBeGreaterThan(0);
  // Once is enough.
  expect(await repair(repository)).toMatchObject({ recordsBad: 0, relocations: [] });

  // The relocation is at fault when it is damaged, too.
  const [relocation = ""] = report.relocations;
  await replace(store, relocation, flip(await store.get(relocation), 90));
  const worse = await verify(repository);
  expect(worse.damagedPoints.map(({ pointId }) => pointId)).toEqual(["point-1"]);
  expect(objectsOf(worse)).toEqual(expect.arrayContaining([pack, relocation]));
});

test("without what verification remembers, only missing packs and leaves are looked for", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, disk, 1);
  await save(repository, disk, 2);
  const [entry] = await entriesOf(repository, first.recordKey);
  if (entry === undefined) throw new Error("there is a chunk");
  const pack = packName(entry.pack.packId);
  await replace(store, pack, flip(await store.get(pack), entry.packOffset));
  expect(await repair(repository, { readAll: false })).toMatchObject({ recordsBad: 0 });
  await verifyAndNote(repository);
  expect(await repair(repository, { readAll: false })).toMatchObject({ recordsFound: 1 });
  await restores(repository, first, disk);
});

test("a lost leaf is found where another disk has the same", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, disk, 1);
  const second = await save(repository, disk, 2, { deduplicated: true });
  const ref = (await repository.readDiskRecord(first.recordKey)).leaves.get(1);
  if (ref === undefined || ref === "hole") throw new Error("leaf 1 has data");
  const pack = packName(ref.packId);
  await replace(store, pack, flip(await store.get(pack), ref.offset + ref.summaryStored + 1));
  await expect(restores(repository, first, disk)).rejects.toThrow();
  const report = await repair(repository);
  expect(report).toMatchObject({ recordsFound: 2, damagedPoints: [] });
  await restores(repository, first, disk);
  await restores(repository, second, disk);
});

test.each([
  ["a full read", undefined],
  [
    "an incremental that hears of no change",
    [{ offset: 0, length: 2 * leafBytes + 7000, kind: "unchanged" }],
  ],
] as const)(
  "what is found nowhere is marked as lost, stored again by %s, and then found for older points",
  async (_how, extents) => {
    const store = createMemoryObjectStore();
    const repository = await createTestRepository(store);
    const first = await save(repository, disk, 1);
    const entries = await entriesOf(repository, first.recordKey);
    const [, entry] = entries;
    if (entry === undefined) throw new Error("there are two chunks");
    const pack = packName(entry.pack.packId);
    await replace(store, pack, flip(await store.get(pack), entry.packOffset));
    const report = await repair(repository);
    expect(report).toMatchObject({ recordsBad: 1, recordsFound: 0, relocations: [] });
    const ranges = [{ offset: entry.offset, length: entry.length }];
    expect(report.damagedPoints).toMatchObject([{ pointId: "point-1", disks: [{ ranges }] }]);
    const known = await readKnownDamage(repository);
    expect(known.places.has(entry.pack.packId, entry.packOffset)).toBe(true);
    expect([...known.points.keys()]).toEqual([first.rootKey]);

    // By the previous point's leaves as well as by the index it could be taken over.
    const second = await save(repository, disk, 2, {
      deduplicated: true,
      previous: first.recordKey,
      ...(extents === undefined ? {} : { extents }),
    });
    await restores(repository, second, disk);
    // All else is still deduplicated.
    const { stats } = await repository.readDiskRecord(second.recordKey);
    expect(stats.bytesNew).toBeLessThan(entry.length + smallSettings.chunkBytesMax);
    const healed = await repair(repository);
    expect(healed.healedPoints.map(({ pointId }) => pointId)).toEqual(["point-1"]);
    await restores(repository, first, disk);
    expect(told(await verifyAndNote(repository))).toEqual([]);
  },
);

test("a damaged point is restored but for exactly what is lost, when that is asked for", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const { recordKey } = await save(repository, disk, 1);
  const entries = await entriesOf(repository, recordKey);
  const lost = [entries[1], entries[2], entries.at(-1)];
  const expected = Uint8Array.from(disk);
  for (const entry of lost) {
    if (entry === undefined) throw new Error("there are chunks");
    const pack = packName(entry.pack.packId);
    await replace(store, pack, flip(await store.get(pack), entry.packOffset));
    expected.fill(0, entry.offset, entry.offset + entry.length);
  }
  const run = async (despiteDamage: boolean) => {
    const writer = createMemoryWriter(disk.length, 0xaa);
    const result = await restoreDisk({
      repository,
      recordKey,
      writer,
      despiteDamage,
      onProgress: () => undefined,
      signal,
      workers: 0,
      logger: silentLogger,
    });
    return { writer, result };
  };
  await expect(run(false)).rejects.toSatisfy(
    (error) => isFailure(error, "object.corrupt") && /bytes \d+ to \d+/.test(error.message),
  );
  const { writer, result } = await run(true);
  const [one, two, three] = lost;
  expect(result.lost).toEqual([
    { offset: one?.offset, length: (one?.length ?? 0) + (two?.length ?? 0) },
    { offset: three?.offset, length: three?.length },
  ]);
  expect(Buffer.compare(writer.bytes, expected)).toBe(0);

  // A leaf that is lost costs its whole range.
  const ref = (await repository.readDiskRecord(recordKey)).leaves.get(0);
  if (ref === undefined || ref === "hole") throw new Error("leaf 0 has data");
  const pack = packName(ref.packId);
  await replace(store, pack, flip(await store.get(pack), ref.offset));
  expected.fill(0, 0, leafBytes);
  const worse = await run(true);
  expect(worse.result.lost[0]).toEqual({ offset: 0, length: leafBytes });
  expect(Buffer.compare(worse.writer.bytes, expected)).toBe(0);
});

test("repair never makes it worse, whatever is damaged how", async () => {
  const base = createMemoryObjectStore();
  const built = await createTestRepository(base);
  const small = seededBytes(leafBytes + 9000, 6);
  const points = [
    await save(built, small, 1),
    await save(built, small, 2),
    await save(built, small, 3, { deduplicated: true }),
  ];
  const all = (await names(base)).filter((name) => !/^(config|keys)/.test(name));
  const damage = fc.record({
    name: fc.constantFrom(...all),
    other: fc.constantFrom(...all),
    kind: fc.constantFrom("flip", "cut", "swap", "delete"),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 6 }), async (damages) => {
      const store = createMemoryObjectStore();
      for (const name of await names(base)) await store.put(name, await base.get(name));
      for (const { name, other, kind, at } of damages) {
        const bytes = await base.get(name);
        const place = Math.floor(at * (bytes.length - 1));
        const changed = {
          flip: flip(bytes, place),
          cut: bytes.subarray(0, place),
          swap: await base.get(other),
          delete: undefined,
        }[kind];
        await replace(store, name, changed);
      }
      const repository = { ...built, ...(await reopen(store)) };
      const before = await readable(repository, points, small);
      const kept = await names(store);
      await repair(repository).catch((error: unknown) => {
        // A condemned list or a session's start may be what was damaged: then it refuses to write.
        if (!isFailure(error)) throw error;
      });
      const after = await readable(repository, points, small);
      for (const block of before) expect(after.has(block)).toBe(true);
      expect(await names(store)).toEqual(expect.arrayContaining(kept));
    }),
    { numRuns: 15 },
  );
});

test("what a copy of the repository has comes back from it", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, disk, 1);
  const second = await save(repository, seededBytes(leafBytes, 9), 2);
  const other = createMemoryObjectStore();
  for (const name of await names(store)) await other.put(name, await store.get(name));
  const copy = await reopen(other);

  const [entry] = await entriesOf(repository, first.recordKey);
  const ref = (await repository.readDiskRecord(first.recordKey)).leaves.get(1);
  if (entry === undefined || ref === undefined || ref === "hole") throw new Error("data");
  const metadataKey = (await repository.readPoint(first.rootKey)).metadataKey;
  const chunks = packName(entry.pack.packId);
  const leaves = packName(ref.packId);
  await replace(store, chunks, undefined);
  await replace(store, leaves, flip(await store.get(leaves), ref.offset + 3));
  const sessionObjects = (await names(store)).filter((name) =>
    name.startsWith(`sessions/${second.rootKey.slice(-32, -16)}/`),
  );
  await store.remove([metadataKey, second.recordKey, second.rootKey, ...sessionObjects]);
  await store.put(second.rootKey, await other.get(second.rootKey));
  const kept = await names(store);

  const dry = await repair(repository, { dryRun: true, copy });
  expect(dry.recordsFound).toBe(dry.recordsBad);
  expect(dry.putBack).toEqual(expect.arrayContaining([metadataKey, ...sessionObjects]));
  expect((await names(store)).filter((name) => !name.startsWith("sessions/"))).toEqual(
    kept.filter((name) => !name.startsWith("sessions/")),
  );
  const report = await repair(repository, { copy });
  expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
  expect(report.putBack).toEqual(
    expect.arrayContaining([metadataKey, second.recordKey, ...sessionObjects]),
  );
  // The copy is not needed any more.
  await restores(repository, first, disk);
  await restores(repository, second, seededBytes(leafBytes, 9));
  const after = await verifyAndNote(repository);
  expect([after.points, after.damagedPoints, after.damagedObjects]).toEqual([2, [], []]);
});

test("a copy that is damaged in the same place does not help, and nothing of it is believed", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, disk, 1);
  const other = createMemoryObjectStore();
  const [entry] = await entriesOf(repository, first.recordKey);
  if (entry === undefined) throw new Error("there is a chunk");
  const pack = packName(entry.pack.packId);
  for (const name of await names(store)) {
    const bytes = await store.get(name);
    await other.put(name, name === pack ? flip(bytes, entry.packOffset + 2) : bytes);
  }
  await replace(store, pack, flip(await store.get(pack), entry.packOffset));
  await replace(other, first.recordKey, flip(await other.get(first.recordKey), 100));
  await replace(store, first.recordKey, undefined);
  const report = await repair(repository, { copy: await reopen(other) });
  expect(report).toMatchObject({ putBack: [], recordsFound: 0 });
  expect(objectsOf(report)).toEqual([first.recordKey]);
});

async function reopen(store: ObjectStore): Promise<Repository> {
  const { openTestRepository } = await import("./test-repository.ts");
  return openTestRepository(store);
}

/** Which blocks of which disk come back right; blocks that come back wrong fail the test. */
async function readable(
  repository: Repository,
  points: readonly Stored[],
  expected: Uint8Array,
): Promise<Set<string>> {
  const found = new Set<string>();
  for (const { pointId, recordKey } of points) {
    try {
      const reader = await openPointReader({ repository, recordKey });
      for (let at = 0; at < expected.length; at += 8192) {
        const into = new Uint8Array(Math.min(8192, expected.length - at));
        try {
          await reader.read(at, into);
        } catch (error) {
          if (!isFailure(error)) throw error;
          continue;
        }
        expect(Buffer.compare(into, expected.subarray(at, at + into.length))).toBe(0);
        found.add(`${pointId}:${at}`);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
    }
  }
  return found;
}
