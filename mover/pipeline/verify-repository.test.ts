import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { emptyLeafTable } from "@holdfast/shared/repository/extent-map/disk-record";
import {
  encodeLeaf,
  type LeafEntry,
  leafEntries,
} from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { writeLeaves } from "./leaf-writer.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  smallSettings,
  transfer,
  writePoint,
} from "./test-repository.ts";
import {
  flip,
  leafBytes,
  objectsOf,
  replace,
  sizeBytes,
  stored,
  told,
  verify,
} from "./test-verify.ts";

async function entriesOf(
  repository: Repository,
  record: DiskRecord,
  index: number,
): Promise<LeafEntry[]> {
  const ref = record.leaves.get(index);
  if (ref === undefined || ref === "hole") throw new Error(`leaf ${index} has no data`);
  const offset = index * record.leafBytes;
  const lengthBytes = Math.min(record.leafBytes, record.sizeBytes - offset);
  const { leaf } = await createLeafStore(repository).read(ref, { index, offset, lengthBytes });
  return [...leafEntries(leaf)];
}

const damages: Record<string, (bytes: Uint8Array) => Uint8Array | undefined> = {
  flipped: (bytes) => flip(bytes, bytes.length >> 1),
  cut: (bytes) => bytes.subarray(0, bytes.length >> 1),
  emptied: () => new Uint8Array(0),
  missing: () => undefined,
};

test("a repository as it was written has nothing to tell, and every chunk is read once", async () => {
  const { repository } = await stored();
  const seen: number[] = [];
  const report = await verify(repository, {
    onProgress: ({ bytesDone, bytesTotal }) => seen.push(bytesDone / bytesTotal),
  });
  expect(report).toMatchObject({ points: 3, disks: 3, chunksBad: 0 });
  expect([report.damagedPoints, report.damagedObjects, report.harmless]).toEqual([[], [], []]);
  // The first disk's data, what changed (and the chunk's rest around it), the third disk's data.
  const expected = 3 * leafBytes + 5000 + 40_000 + 100_000;
  expect(report.bytesChecked).toBeGreaterThanOrEqual(expected);
  expect(report.bytesChecked).toBeLessThan(expected + 2 * smallSettings.chunkBytesMax);
  expect(seen.at(-1)).toBe(1);
  expect(seen).toEqual([...seen].sort((left, right) => left - right));
});

test("worker threads find the same", async () => {
  const { store, repository, third } = await stored();
  const [entry] = await entriesOf(repository, third.record, 0);
  if (entry === undefined) throw new Error("there is a chunk");
  const pack = packName(entry.pack.packId);
  await replace(store, pack, flip(await store.get(pack), entry.packOffset));
  const alone = await verify(repository);
  const threaded = await verify(repository, { workers: 2 });
  expect({ ...threaded, seconds: 0 }).toEqual({ ...alone, seconds: 0 });
  expect(told(threaded)).toEqual([["point-3", "vda", [entry.offset, entry.length]]]);
});

test.each(Object.entries(damages))("a root that is %s", async (name, damage) => {
  const { store, repository, first } = await stored();
  await replace(store, first.rootKey, damage(await store.get(first.rootKey)));
  const report = await verify(repository);
  // The end of its session still names a root that is gone.
  expect(objectsOf(report)).toEqual([first.rootKey]);
  expect(report).toMatchObject({ points: 2, damagedPoints: [] });
  const one = verify(repository, { pointId: "point-1" });
  if (name === "missing") {
    await expect(one).rejects.toSatisfy((error) => isFailure(error, "not-found"));
  } else expect(objectsOf(await one)).toEqual([first.rootKey]);
  expect(objectsOf(await verify(repository, { pointId: "point-2" }))).toEqual([]);
});

test.each(Object.entries(damages))("metadata that is %s", async (_name, damage) => {
  const { store, repository, second } = await stored();
  const { metadataKey } = await repository.readPoint(second.rootKey);
  await replace(store, metadataKey, damage(await store.get(metadataKey)));
  const report = await verify(repository);
  expect(told(report)).toEqual([["point-2", "metadata"]]);
  expect(objectsOf(report)).toEqual([metadataKey]);
});

test.each(Object.entries(damages))("a disk record that is %s", async (_name, damage) => {
  const { store, repository, first } = await stored();
  await replace(store, first.recordKey, damage(await store.get(first.recordKey)));
  const report = await verify(repository);
  expect(told(report)).toEqual([["point-1", "vda", [0, sizeBytes]]]);
  expect(objectsOf(report)).toEqual([first.recordKey]);
});

test("a disk record that is another point's", async () => {
  const { repository, first, third } = await stored();
  const swapped = await repository.readPoint(third.rootKey);
  const [disk] = swapped.disks;
  if (disk === undefined) throw new Error("there is a disk");
  // As a faulty writer might: everything authenticates, the root names a record with another digest.
  const lying: Repository = {
    ...repository,
    listPoints: async function* () {
      yield { ...swapped, disks: [{ ...disk, recordKey: first.recordKey }] };
    },
  };
  expect(told(await verify(lying))).toEqual([["point-3", "vda", [0, 100_000]]]);
});

test("a leaf that is flipped costs its range of the points that share it, no more", async () => {
  const { store, repository, first, second } = await stored();
  const ref = first.record.leaves.get(1);
  expect(second.record.leaves.get(1)).toEqual(ref);
  if (ref === undefined || ref === "hole") throw new Error("leaf 1 has data");
  const pack = packName(ref.packId);
  await replace(store, pack, flip(await store.get(pack), ref.offset + ref.summaryStored + 3));
  const report = await verify(repository);
  expect(told(report)).toEqual([
    ["point-1", "vda", [leafBytes, leafBytes]],
    ["point-2", "vda", [leafBytes, leafBytes]],
  ]);
  expect(objectsOf(report)).toEqual([pack]);
});

test.each(["missing", "cut", "emptied"])("a pack of leaves that is %s", async (name) => {
  const { store, repository, second } = await stored();
  const ref = second.record.leaves.get(0);
  if (ref === undefined || ref === "hole") throw new Error("leaf 0 has data");
  const pack = packName(ref.packId);
  const bytes = await store.get(pack);
  // Only the changed leaf of the second point is in it.
  await replace(store, pack, name === "cut" ? bytes.subarray(0, 100) : damages[name]?.(bytes));
  const report = await verify(repository);
  expect(told(report)).toEqual([["point-2", "vda", [0, leafBytes]]]);
  expect(objectsOf(report)).toEqual([pack]);
});

test("a chunk that is flipped is named alone, in every point that needs it", async () => {
  const { store, repository, first } = await stored();
  const entries = await entriesOf(repository, first.record, 2);
  const entry = entries[1];
  if (entry === undefined) throw new Error("leaf 2 has two chunks");
  const pack = packName(entry.pack.packId);
  await replace(store, pack, flip(await store.get(pack), entry.packOffset + 5));
  const report = await verify(repository);
  const range = [2 * leafBytes + entry.offset, entry.length];
  expect(told(report)).toEqual([
    ["point-1", "vda", range],
    ["point-2", "vda", range],
  ]);
  expect(report).toMatchObject({ chunksBad: 1 });
  expect(objectsOf(report)).toEqual([pack]);
  expect(told(await verify(repository, { pointId: "point-2" }))).toEqual([
    ["point-2", "vda", range],
  ]);
  expect(told(await verify(repository, { pointId: "point-3" }))).toEqual([]);
});

/** What a point needs of one pack, as ranges of the disk with neighbours joined. */
async function needs(repository: Repository, record: DiskRecord, pack: string, from = 0) {
  const ranges: [number, number][] = [];
  for (let index = 0; index < record.leaves.count; index += 1) {
    if (record.leaves.get(index) === "hole") continue;
    for (const entry of await entriesOf(repository, record, index)) {
      const isHit =
        packName(entry.pack.packId) === pack && entry.packOffset + entry.storedLength > from;
      if (!isHit) continue;
      const offset = index * leafBytes + entry.offset;
      const last = ranges.at(-1);
      if (last !== undefined && last[0] + last[1] === offset) last[1] += entry.length;
      else ranges.push([offset, entry.length]);
    }
  }
  return ranges;
}

test.each(["missing", "cut", "emptied", "swapped"])("a pack of chunks that is %s", async (how) => {
  const { store, repository, first, second, third } = await stored();
  const [entry] = await entriesOf(repository, first.record, 1);
  const [other] = await entriesOf(repository, third.record, 0);
  if (entry === undefined || other === undefined) throw new Error("there are chunks");
  const pack = packName(entry.pack.packId);
  const bytes = await store.get(pack);
  const damaged =
    how === "swapped" ? await store.get(packName(other.pack.packId)) : damages[how]?.(bytes);
  await replace(store, pack, damaged);
  const cutAt = how === "cut" ? (damaged?.length ?? 0) : 0;
  const report = await verify(repository);
  expect(objectsOf(report)).toEqual([pack]);
  const expected: unknown[] = [];
  for (const [id, { record }] of [
    ["point-1", first],
    ["point-2", second],
  ] as const) {
    const ranges = await needs(repository, record, pack, cutAt);
    if (ranges.length > 0) expected.push([id, "vda", ...ranges]);
  }
  expect(expected.length).toBeGreaterThan(0);
  expect(told(report)).toEqual(expected);
});

test("a leaf that looks for a good chunk in the wrong place is found, the chunk's other users are not blamed", async () => {
  const { repository, third } = await stored();
  const { record } = third;
  const entries = await entriesOf(repository, record, 0);
  const [one, two] = entries;
  const ref = record.leaves.get(0);
  if (!one || !two || ref === undefined || ref === "hole") throw new Error("two chunks");
  // Ids, lengths and so the digest are right; two places in the pack are swapped.
  const place = ({ packOffset, storedLength }: LeafEntry) => ({ packOffset, storedLength });
  const mutant = encodeLeaf({
    index: 0,
    lengthBytes: 100_000,
    entries: [{ ...one, ...place(two) }, { ...two, ...place(one) }, ...entries.slice(2)],
  });
  const leaf = { index: 0, ...mutant, digest: ref.digest };
  const session = await beginSession(repository);
  const { refs } = await writeLeaves(repository, session, [leaf], new AbortController().signal);
  const leaves = emptyLeafTable(record.sizeBytes, record.leafBytes);
  const written = refs[0]?.ref;
  if (written === undefined) throw new Error("a leaf was written");
  leaves.set(0, written);
  const recordKey = await repository.writeDiskRecord(session, { ...record, leaves });
  await writePoint(repository, newPoint(recordKey, { pointId: "point-4", vmKey: "vm-3" }));
  expect(told(await verify(repository))).toEqual([
    ["point-4", "vda", [0, one.length + two.length]],
  ]);
});

test.each(Object.entries(damages))(
  "an index segment that is %s harms nobody",
  async (how, damage) => {
    const { store, repository } = await stored();
    let segment = "";
    for await (const { key } of store.list("index/")) segment = key;
    await replace(store, segment, damage(await store.get(segment)));
    const report = await verify(repository);
    expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
    expect(report.harmless.map(({ object }) => object)).toEqual(how === "missing" ? [] : [segment]);
  },
);

test("a sample reads about its share of the chunks, and all that names them", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const { recordKey } = await transfer(repository, createMemoryReader(seededBytes(12_000_000, 3)));
  await writePoint(repository, newPoint(recordKey));
  const all = await verify(repository);
  // Seeds of its own, so that the test's outcome is no matter of luck.
  let byte = 0;
  const random = (length: number): Uint8Array => {
    byte += 1;
    return new Uint8Array(length).fill(byte);
  };
  const seeded: Repository = { ...repository, random };
  const read: number[] = [];
  for (let run = 0; run < 5; run += 1) {
    read.push((await verify(seeded, { share: 0.2 })).bytesChecked / all.bytesChecked);
  }
  const mean = read.reduce((sum, share) => sum + share, 0) / read.length;
  expect(mean).toBeGreaterThan(0.15);
  expect(mean).toBeLessThan(0.25);
  expect(new Set(read).size).toBeGreaterThan(1);
  // Leaves are no matter of the sample.
  const ref = (await repository.readDiskRecord(recordKey)).leaves.get(7);
  if (ref === undefined || ref === "hole") throw new Error("leaf 7 has data");
  const pack = packName(ref.packId);
  await replace(store, pack, flip(await store.get(pack), ref.offset));
  expect(told(await verify(seeded, { share: 0.01 }))).toEqual([
    ["point-1", "vda", [7 * leafBytes, leafBytes]],
  ]);
});

test("it stops when it is told to", async () => {
  const { repository } = await stored();
  const stop = new AbortController();
  stop.abort(new Failure("cancelled", { message: "cancelled" }));
  await expect(verify(repository, { signal: stop.signal })).rejects.toSatisfy((error) =>
    isFailure(error, "cancelled"),
  );
});

test("an empty repository is all right; a point that is not there is not", async () => {
  const repository = await createTestRepository(createMemoryObjectStore());
  expect(await verify(repository)).toMatchObject({ points: 0, damagedPoints: [] });
  await expect(verify(repository, { pointId: "point-1" })).rejects.toSatisfy((error) =>
    isFailure(error, "not-found"),
  );
});
