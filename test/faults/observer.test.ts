import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "../../mover/pipeline/memory-disk.ts";
import { seededBytes } from "../../mover/pipeline/test-data.ts";
import {
  createTestRepository,
  newPoint,
  smallSettings,
  transfer,
  writePoint,
} from "../../mover/pipeline/test-repository.ts";

/** T07: what the sizes of packs tell one who reads the bucket's listing. */
async function packSizes(disk: Uint8Array): Promise<readonly number[]> {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const { recordKey } = await transfer(repository, createMemoryReader(disk));
  await writePoint(repository, newPoint(recordKey));
  return await dataPacks(store);
}

async function dataPacks(store: ObjectStore): Promise<readonly number[]> {
  const sizes: number[] = [];
  for await (const { key, sizeBytes } of store.list("packs/")) {
    const header = await store.getRange(key, { offset: 0, length: 16 });
    if (header[10] === 3) sizes.push(sizeBytes);
  }
  return sizes.sort((left, right) => right - left);
}

/** Two machines whose contents have nothing in common: one compresses by half, the other not at all. */
const machines: readonly (readonly [string, Uint8Array])[] = [
  ["half of it text", seededBytes(6_000_000, 3)],
  ["all noise", noise(4_000_000)],
];

function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = 12_345;
  for (let at = 0; at < length; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 0xff;
  }
  return bytes;
}

const { packBytes, chunkBytesMax } = smallSettings;
/** A pack is full when the next chunk might not fit; then comes its footer, of 45 bytes a chunk. */
const footerMax = (packBytes / smallSettings.chunkBytesMin) * 2 * 45 + 64;

test.each(machines)(
  "T07: a pack's size tells nothing of a machine (%s): all but its last are as large as packs are",
  async (_name, disk) => {
    const sizes = await packSizes(disk);
    const full = sizes.slice(0, -1);
    expect(full.length).toBeGreaterThan(8);
    for (const size of full) {
      expect(size).toBeGreaterThan(packBytes - chunkBytesMax);
      expect(size).toBeLessThanOrEqual(packBytes + footerMax);
    }
  },
);

test("T07: mean and spread of two machines' packs differ by less than one machine's packs among each other", async () => {
  const [one = [], other = []] = await Promise.all(
    machines.map(async ([, disk]) => (await packSizes(disk)).slice(0, -1)),
  );
  const mean = (sizes: readonly number[]): number =>
    sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
  const spread = (sizes: readonly number[]): number => Math.max(...sizes) - Math.min(...sizes);
  const difference = Math.abs(mean(one) - mean(other));
  expect(difference).toBeLessThan(Math.max(spread(one), spread(other)));
  expect(difference / packBytes).toBeLessThan(0.1);
});
