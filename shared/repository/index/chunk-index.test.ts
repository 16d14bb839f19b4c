import { describe, expect, test } from "vitest";
import { systemRandom } from "../../ports/random.ts";
import { createChunkFinder, createChunkIndex } from "./chunk-index.ts";

function packOf(count: number, ids = systemRandom(count * 32)) {
  const column = (value: (position: number) => number): Uint32Array =>
    Uint32Array.from({ length: count }, (_, position) => value(position));
  return {
    pack: { packId: systemRandom(16), epoch: 3 },
    records: {
      count,
      ids,
      offsets: column((position) => 64 + position * 131_101),
      storedLengths: column((position) => 17 + ((position * 7919) % 1_048_000)),
      rawLengths: column(() => 4096),
      kinds: new Uint8Array(count),
    },
  };
}

const idOf = (ids: Uint8Array, position: number): Uint8Array =>
  ids.subarray(position * 32, position * 32 + 32);

describe("chunk index", () => {
  test("finds what was added where it was added, in any thread's view, over many tables", () => {
    const index = createChunkIndex();
    const find = createChunkFinder(index.shared);
    const packs = Array.from({ length: 300 }, () => packOf(200));
    for (const { pack, records } of packs) index.add(pack, records);
    // A second pack with the same chunks changes nothing: the first place stays.
    for (const { records } of packs) index.add({ packId: systemRandom(16), epoch: 4 }, records);
    expect(index.count()).toBe(60_000);
    for (const { pack, records } of packs) {
      for (let position = 0; position < records.count; position += 1) {
        const place = find(idOf(records.ids, position));
        expect([place?.offset, place?.storedLength, place?.epoch]).toEqual([
          records.offsets[position],
          records.storedLengths[position],
          3,
        ]);
        expect(Buffer.compare(place?.packId ?? Buffer.alloc(0), pack.packId)).toBe(0);
      }
    }
    for (let round = 0; round < 10_000; round += 1) expect(find(systemRandom(32))).toBeUndefined();
    expect(index.wanted()).toEqual([]);
  });

  test("what is expected fits into one table of 24 bytes a chunk", () => {
    const chunks = 200_000;
    const index = createChunkIndex({ chunksExpected: chunks });
    expect(index.shared.slots.byteLength / chunks).toBeLessThanOrEqual(24.1);
    const before = index.shared.slots.byteLength;
    for (let pack = 0; pack < chunks / 1000; pack += 1) {
      const { pack: at, records } = packOf(250, systemRandom(250 * 32));
      index.add(at, records);
    }
    expect(index.shared.slots.byteLength).toBe(before);
  });

  test("an index without memory left finds what it has and takes no more", () => {
    const index = createChunkIndex({ bytesMax: 400_000 });
    const packs = Array.from({ length: 200 }, () => packOf(250));
    for (const { pack, records } of packs) index.add(pack, records);
    expect(index.count()).toBeLessThan(20_000);
    expect(index.count()).toBeGreaterThan(10_000);
    expect(index.find(idOf(packs[0]?.records.ids ?? Buffer.alloc(32), 0))).toBeDefined();
  });

  test("what does not fit a slot is left out, never shortened", () => {
    const index = createChunkIndex();
    const id = systemRandom(32);
    index.addOne({ packId: systemRandom(16), epoch: 1 }, id, 2 ** 27, 100);
    index.addOne({ packId: systemRandom(16), epoch: 1 }, id, 100, 2 ** 20);
    expect(index.find(id)).toBeUndefined();
    index.addOne({ packId: systemRandom(16), epoch: 1 }, id, 2 ** 27 - 1, 2 ** 20 - 1);
    expect(index.find(id)).toMatchObject({ offset: 2 ** 27 - 1, storedLength: 2 ** 20 - 1 });
  });
});

describe("sparse chunk index", () => {
  const chunks = 1_000_000;
  const bytesMax = 2_000_000;

  test("knows hooks of everything, asks for their packs, and then knows the chunks around them", () => {
    const index = createChunkIndex({ chunksExpected: chunks, bytesMax });
    const find = createChunkFinder(index.shared);
    expect(index.hookBits).toBe(5);
    const packs = Array.from({ length: 200 }, () => packOf(250));
    for (const { pack, records } of packs) index.add(pack, records);
    const stranger = packOf(250);
    // The memory of neighbours is a few packs' only: the first packs are forgotten but for their hooks.
    for (const { pack, records } of Array.from({ length: 400 }, () => packOf(250))) {
      index.add(pack, records);
    }
    expect(index.wanted()).toEqual([]);
    let found = 0;
    for (const { pack, records } of packs.slice(0, 100)) {
      const known = (): number =>
        Array.from({ length: 250 }, (_, position) => find(idOf(records.ids, position))).filter(
          (place) => place !== undefined,
        ).length;
      const before = known();
      expect(before).toBeLessThan(40);
      for (const wanted of index.wanted()) {
        expect(Buffer.compare(wanted.packId, pack.packId)).toBe(0);
        index.addNeighbours(wanted, records);
        found += 1;
        expect(known()).toBe(250);
        index.wanted();
      }
    }
    // One of 32 chunks is a hook; a pack of 250 has none with a probability below 0.0004.
    expect(found).toBeGreaterThan(95);
    expect(find(idOf(stranger.records.ids, 0))).toBeUndefined();
    expect(index.shared.slots.byteLength + index.shared.neighbours.byteLength).toBeLessThan(
      bytesMax + 10_000,
    );
  });

  test("places are right whatever was forgotten meanwhile", () => {
    const index = createChunkIndex({ chunksExpected: chunks, bytesMax: 200_000 });
    const all = new Map<string, readonly number[]>();
    for (let round = 0; round < 300; round += 1) {
      const { pack, records } = packOf(50);
      index.add(pack, records);
      for (let position = 0; position < 50; position += 1) {
        const key = Buffer.from(idOf(records.ids, position)).toString("hex");
        all.set(key, [records.offsets[position] ?? 0, records.storedLengths[position] ?? 0]);
      }
    }
    let found = 0;
    for (const [key, expected] of all) {
      const place = index.find(Buffer.from(key, "hex"));
      if (place === undefined) continue;
      found += 1;
      expect([place.offset, place.storedLength]).toEqual(expected);
    }
    expect(found).toBeGreaterThan(1000);
  });
});
