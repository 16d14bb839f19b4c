import type { Extent } from "@holdfast/shared/domain/extent";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { openPointReader } from "./point-reader.ts";
import { pieces, writePieces } from "./test-data.ts";
import { createTestRepository, transfer } from "./test-repository.ts";

describe("a disk of a point", () => {
  test("reads like the disk that was backed up, and knows its holes", async () => {
    const reads = fc.array(fc.tuple(fc.nat(699_999), fc.nat(300_000)), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(pieces, reads, async (content, ranges) => {
        const disk = writePieces(new Uint8Array(700_000), content);
        const repository = await createTestRepository(createMemoryObjectStore());
        const { recordKey } = await transfer(repository, createMemoryReader(disk));
        await using reader = await openPointReader({ repository, recordKey });
        expect(reader.sizeBytes).toBe(disk.length);
        for (const [offset, length] of ranges) {
          const into = new Uint8Array(Math.min(length, disk.length - offset)).fill(0xaa);
          await reader.read(offset, into);
          expect(Buffer.compare(into, disk.subarray(offset, offset + into.length))).toBe(0);
        }
        const extents: Extent[] = [];
        for await (const extent of reader.extents()) extents.push(extent);
        expect(
          extents.reduce((sum, { offset, length }) => (offset === sum ? sum + length : -1), 0),
        ).toBe(disk.length);
        for (const { offset, length, kind } of extents) {
          const isZero = disk.subarray(offset, offset + length).every((byte) => byte === 0);
          if (kind === "zero") expect(isZero).toBe(true);
        }
        const again = await transfer(repository, reader, { diskKey: "vdb" });
        const one = await repository.readDiskRecord(recordKey);
        const two = await repository.readDiskRecord(again.recordKey);
        expect(two.digest).toEqual(one.digest);
      }),
      { numRuns: 25 },
    );
  });
});
