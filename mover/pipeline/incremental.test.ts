import type { Extent } from "@holdfast/shared/domain/extent";
import { isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { type Piece, pieces, seededBytes, writePieces } from "./test-data.ts";
import { beginSession, createTestRepository, restore, transfer } from "./test-repository.ts";

describe("incremental", () => {
  test("any map that covers the real changes gives the right disk, grown, shrunk or not", async () => {
    const change = fc.record({
      before: pieces,
      sizeBefore: fc.nat(700_000),
      sizeAfter: fc.nat(700_000),
      changes: fc.array(
        fc.record({
          at: fc.nat(700_000),
          length: fc.nat(60_000),
          seed: fc.nat(5),
          zero: fc.boolean(),
        }),
        { maxLength: 5 },
      ),
      // Claimed changed although they are not, at any offset.
      extra: fc.array(fc.record({ at: fc.nat(700_000), length: fc.nat(30_000), seed: fc.nat(1) }), {
        maxLength: 3,
      }),
      share: fc.constantFrom(0, 0.1, 1),
    });
    await fc.assert(
      fc.asyncProperty(change, async ({ before, sizeBefore, sizeAfter, changes, extra, share }) => {
        const first = writePieces(new Uint8Array(sizeBefore), before);
        const second = new Uint8Array(sizeAfter);
        second.set(first.subarray(0, sizeAfter));
        const map = new Map<"data" | "zero", Piece[]>([
          ["data", [...extra]],
          ["zero", []],
        ]);
        for (const { zero, ...piece } of changes) {
          writePieces(second, [piece]);
          if (zero) second.fill(0, piece.at, piece.at + piece.length);
          map.get("data")?.push(piece);
        }
        const repository = await createTestRepository(createMemoryObjectStore());
        const full = await transfer(repository, createMemoryReader(first));
        const extents = honestExtents(second, map.get("data") ?? []);
        const { recordKey } = await transfer(repository, createMemoryReader(second, { extents }), {
          previous: full.recordKey,
          sampleShare: share,
        });
        const target = await restore(repository, recordKey, { sizeBytes: sizeAfter });
        expect(Buffer.compare(target.bytes, second)).toBe(0);
        // The point before is untouched.
        const earlier = await restore(repository, full.recordKey, { sizeBytes: sizeBefore });
        expect(Buffer.compare(earlier.bytes, first)).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  test("reads what changed and the chunks it touches, and stores only that", async () => {
    const disk = seededBytes(4_194_304, 3);
    const repository = await createTestRepository(createMemoryObjectStore());
    const full = await transfer(repository, createMemoryReader(disk));
    disk.set(seededBytes(4096, 9), 1_000_000);
    const extents = honestExtents(disk, [{ at: 1_000_000, length: 4096, seed: 0 }]);
    const { stats } = await transfer(repository, createMemoryReader(disk, { extents }), {
      previous: full.recordKey,
    });
    expect(stats.bytesRead).toBeGreaterThan(0);
    expect(stats.bytesRead).toBeLessThanOrEqual(4 * 65_536);
    expect(stats.bytesNew).toBeLessThanOrEqual(stats.bytesRead);
  });

  test("nothing changed: nothing is read or stored, also when everything is read again", async () => {
    const disk = seededBytes(1_000_001, 3);
    const repository = await createTestRepository(createMemoryObjectStore());
    const full = await transfer(repository, createMemoryReader(disk));
    const extents: Extent[] = [{ offset: 0, length: disk.length, kind: "unchanged" }];
    const unread = await transfer(repository, createMemoryReader(disk, { extents }), {
      previous: full.recordKey,
    });
    expect(unread.stats).toMatchObject({ bytesRead: 0, bytesStored: 0 });
    const reread = await transfer(repository, createMemoryReader(disk), {
      previous: full.recordKey,
    });
    expect(reread.stats).toMatchObject({ bytesRead: disk.length, bytesNew: 0 });
  });

  test("a second disk with the same data finds it in the index", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const disk = seededBytes(1_000_001, 4);
    await transfer(repository, createMemoryReader(disk));
    const signal = new AbortController().signal;
    const loader = createChunkIndexLoader(repository, { logger: silentLogger });
    const { index } = await loader.load(await beginSession(repository), signal);
    const other = await transfer(repository, createMemoryReader(disk), { diskKey: "vdb", index });
    expect(other.stats.bytesNew).toBe(0);
    const target = await restore(repository, other.recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, disk)).toBe(0);
  });

  test("a source that lies is found when everything is sampled", async () => {
    const lie = fc.record({
      content: pieces,
      at: fc.nat(599_999),
      kind: fc.constantFrom<"unchanged" | "zero">("unchanged", "zero"),
    });
    await fc.assert(
      fc.asyncProperty(lie, async ({ content, at, kind }) => {
        const disk = writePieces(new Uint8Array(600_000), content);
        const repository = await createTestRepository(createMemoryObjectStore());
        const full = await transfer(repository, createMemoryReader(disk));
        if (kind === "zero") disk.fill(0);
        disk[at] = (disk[at] ?? 0) ^ 1;
        const extents: Extent[] = [{ offset: 0, length: disk.length, kind }];
        const attempt = transfer(repository, createMemoryReader(disk, { extents }), {
          previous: full.recordKey,
          sampleShare: 1,
        });
        await expect(attempt).rejects.toSatisfy((error) => isFailure(error, "changes.unknown"));
      }),
      { numRuns: 40 },
    );
  });

  test("a previous leaf that cannot be read is read from the source in full", async () => {
    const store = createMemoryObjectStore();
    const repository = await createTestRepository(store);
    const disk = seededBytes(900_000, 3);
    const full = await transfer(repository, createMemoryReader(disk));
    const record = await repository.readDiskRecord(full.recordKey);
    const ref = record.leaves.get(1);
    if (ref === undefined || ref === "hole") throw new Error("leaf 1 has data");
    const name = `packs/${Buffer.from(ref.packId).toString("hex", 0, 1)}/${Buffer.from(ref.packId).toString("hex")}`;
    await store.remove([name]);
    const data = { offset: 0, length: 4096, kind: "data" } as const;
    const extents: Extent[] = [
      data,
      { offset: 4096, length: 300_000 - 4096, kind: "unchanged" },
      { offset: 300_000, length: 600_000, kind: "data" },
    ];
    const { recordKey } = await transfer(repository, createMemoryReader(disk, { extents }), {
      previous: full.recordKey,
    });
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, disk)).toBe(0);
  });
});

/** The whole disk: data where it is said to have changed (zero where that is so), else unchanged. */
function honestExtents(disk: Uint8Array, changed: readonly Piece[]): readonly Extent[] {
  const kinds = new Uint8Array(disk.length);
  for (const { at, length } of changed) kinds.fill(1, at, at + length);
  const extents: Extent[] = [];
  let from = 0;
  while (from < disk.length) {
    const kind = kinds[from];
    let to = from;
    while (to < disk.length && kinds[to] === kind) to += 1;
    const isZero = disk.subarray(from, to).every((byte) => byte === 0);
    extents.push({
      offset: from,
      length: to - from,
      kind: kind === 0 ? "unchanged" : isZero ? "zero" : "data",
    });
    from = to;
  }
  return extents;
}
