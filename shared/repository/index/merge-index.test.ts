import fc from "fast-check";
import { expect, test } from "vitest";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { toHex } from "../format/bytes.ts";
import type { RepositorySecrets } from "../keys/secrets.ts";
import { createObjects } from "../objects.ts";
import { encodeIndexSegment, type IndexedPack } from "./index-segment.ts";
import { isMergeDue, mergeIndex } from "./merge-index.ts";
import { readIndexRows } from "./read-index.ts";

const secrets: RepositorySecrets = {
  repositoryId: systemRandom(16),
  identity: systemRandom(32),
  masters: new Map([[1, systemRandom(32)]]),
  activeEpoch: 1,
};
const newId = (): string => toHex(systemRandom(16));

function createStore() {
  const store = createMemoryObjectStore();
  const objects = createObjects({ store, secrets, random: systemRandom });
  const putSegment = async (packs: readonly IndexedPack[]): Promise<string> => {
    const name = `index/${newId()}`;
    await objects.put(name, "index-segment", encodeIndexSegment(packs));
    return name;
  };
  const names = async (): Promise<string[]> => {
    const all: string[] = [];
    for await (const { key } of store.list("index/")) all.push(key);
    return all;
  };
  /** What the index says: id's first 16 bytes to the places that it has for it. */
  const contents = async (): Promise<Map<string, string[]>> => {
    const rows = new Map<string, string[]>();
    for (const name of await names()) {
      await readIndexRows(objects, name, (pack, id, offset, storedLength) => {
        const key = toHex(id.subarray(0, 16));
        const place = `${toHex(pack.packId)}/${pack.epoch} ${offset} ${storedLength}`;
        rows.set(key, [...(rows.get(key) ?? []), place]);
      });
    }
    return rows;
  };
  return { store, objects, putSegment, names, contents };
}

function makePack(count: number): IndexedPack {
  const column = (): Uint32Array =>
    Uint32Array.from(
      { length: count },
      () => Buffer.from(systemRandom(4)).readUInt32LE() % 1_000_000,
    );
  return {
    packId: Uint8Array.from(systemRandom(16)),
    epoch: 1,
    records: {
      count,
      ids: systemRandom(count * 32),
      offsets: column(),
      storedLengths: column(),
      rawLengths: column(),
      kinds: new Uint8Array(count),
    },
  };
}

test("merges keep every chunk once, and leave nothing of what they replace", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 }), {
        minLength: 1,
        maxLength: 8,
      }),
      fc.integer({ min: 4, max: 200 }),
      async (segments, shardChunks) => {
        const { store, objects, putSegment, names, contents } = createStore();
        const packs: IndexedPack[] = [];
        const half = Math.ceil(segments.length / 2);
        const put = async (sizes: readonly number[]): Promise<void> => {
          const made = sizes.map(makePack);
          packs.push(...made);
          await putSegment(made);
        };
        for (const sizes of segments.slice(0, half)) await put(sizes);
        await mergeIndex({ store, objects, newId, shardChunks });
        for (const sizes of segments.slice(half)) await put(sizes);
        // The same chunks in a second pack: one of the places must stay.
        const [first] = packs;
        if (first !== undefined) await putSegment([{ ...first, packId: systemRandom(16) }]);
        await mergeIndex({ store, objects, newId, shardChunks });
        const rows = await contents();
        for (const { packId, epoch, records } of packs) {
          for (let row = 0; row < records.count; row += 1) {
            const id = toHex(records.ids.subarray(row * 32, row * 32 + 16));
            const found = rows.get(id) ?? [];
            rows.delete(id);
            const place = `${toHex(packId)}/${epoch} ${records.offsets[row]} ${records.storedLengths[row]}`;
            if (packId !== first?.packId) expect(found).toEqual([place]);
            else expect(found.length).toBe(1);
          }
        }
        expect(rows.size).toBe(0);
        expect((await names()).every((name) => /-\d+-[0-9a-f]+$/.test(name))).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});

test("one merge takes no more than fits, and the next ones take the rest", async () => {
  const { store, objects, putSegment, contents } = createStore();
  for (let round = 0; round < 10; round += 1) await putSegment([makePack(100)]);
  const options = { store, objects, newId, freshChunksMax: 350, shardChunks: 200 };
  const left: number[] = [];
  for (let round = 0; round < 4; round += 1) left.push((await mergeIndex(options)).left);
  expect(left).toEqual([7, 4, 1, 0]);
  expect((await contents()).size).toBe(1000);
  expect(await mergeIndex(options)).toEqual({
    merged: 0,
    written: 0,
    chunks: 0,
    left: 0,
    damaged: [],
  });
});

test("a merge that ends at any moment has lost nothing", async () => {
  for (let puts = 0; ; puts += 1) {
    const { store, objects, putSegment, contents } = createStore();
    for (let round = 0; round < 5; round += 1) await putSegment([makePack(50)]);
    const before = await contents();
    let left = puts;
    const failing = {
      ...objects,
      put: async (...call: Parameters<typeof objects.put>): Promise<void> => {
        if (left === 0) throw new Error("stopped");
        left -= 1;
        await objects.put(...call);
      },
    };
    const outcome = await mergeIndex({ store, objects: failing, newId, shardChunks: 60 }).catch(
      (error: unknown) => error,
    );
    for (const id of before.keys()) expect((await contents()).get(id)).toBeDefined();
    await mergeIndex({ store, objects, newId, shardChunks: 60 });
    expect(await contents()).toEqual(before);
    if (!(outcome instanceof Error)) break;
  }
});

test("a damaged segment is named and goes; the others' chunks stay", async () => {
  const { store, objects, putSegment, contents, names } = createStore();
  const kept = makePack(50);
  await putSegment([kept]);
  const name = await putSegment([makePack(50)]);
  const bytes = Uint8Array.from(await store.get(name));
  bytes[200] = (bytes[200] ?? 0) ^ 1;
  await store.remove([name]);
  await store.put(name, bytes);
  const report = await mergeIndex({ store, objects, newId });
  expect(report.damaged).toEqual([name]);
  expect((await contents()).size).toBe(50);
  expect(await names()).not.toContain(name);
});

test("a merge is due when many segments or many new chunks wait", () => {
  const fresh = (count: number, chunks: number) =>
    Array.from({ length: count }, (_, at) => ({
      key: `index/${at.toString(16).padStart(32, "0")}`,
      sizeBytes: chunks * 44,
    }));
  const shards = [{ key: `index/${"a".repeat(32)}-0-0`, sizeBytes: 28 * 10_000_000 }];
  expect(isMergeDue([])).toBe(false);
  expect(isMergeDue(fresh(63, 100))).toBe(false);
  expect(isMergeDue(fresh(64, 100))).toBe(true);
  expect(isMergeDue(fresh(2, 60_000))).toBe(true);
  expect(isMergeDue([...fresh(2, 60_000), ...shards])).toBe(false);
});
