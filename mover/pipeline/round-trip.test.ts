import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { pieces, writePieces } from "./test-data.ts";
import { createTestRepository, openTestRepository, restore, transfer } from "./test-repository.ts";

describe("round trip", () => {
  test("what was backed up is restored over a target full of other bytes, holes included", async () => {
    await fc.assert(
      fc.asyncProperty(pieces, fc.nat(700_000), async (content, size) => {
        const disk = writePieces(new Uint8Array(size), content);
        const repository = await createTestRepository(createMemoryObjectStore());
        const { recordKey, stats } = await transfer(repository, createMemoryReader(disk));
        expect(stats.bytesDone).toBe(size);
        const target = await restore(repository, recordKey, { sizeBytes: size });
        expect(Buffer.compare(target.bytes, disk)).toBe(0);
        expect(target.isFlushed()).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("with worker threads, reopened, in a larger target", async () => {
    const size = 3_000_001;
    const disk = writePieces(new Uint8Array(size), [
      { at: 5000, length: 1_200_000, seed: 1 },
      { at: 2_000_000, length: 1_000_001, seed: 2 },
    ]);
    const store = createMemoryObjectStore();
    const { recordKey } = await transfer(
      await createTestRepository(store),
      createMemoryReader(disk),
      { workers: 2 },
    );
    const target = await restore(await openTestRepository(store), recordKey, {
      sizeBytes: size + 10_000,
      workers: 2,
    });
    expect(Buffer.compare(target.bytes.subarray(0, size), disk)).toBe(0);
    expect(target.bytes.subarray(size).every((byte) => byte === 0)).toBe(true);
  });

  test("zeros are not stored, and repeated data once", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const disk = new Uint8Array(2_097_152);
    const { stats } = await transfer(repository, createMemoryReader(disk));
    expect(stats).toMatchObject({ bytesRead: disk.length, bytesNew: 0, bytesStored: 0 });
    writePieces(disk, [
      { at: 0, length: 262_144, seed: 7 },
      { at: 1_048_576, length: 262_144, seed: 7 },
    ]);
    const again = await transfer(repository, createMemoryReader(disk));
    expect(again.stats.bytesNew).toBe(262_144);
  });
});
