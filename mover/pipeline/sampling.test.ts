import { isFailure } from "@holdfast/shared/domain/failure";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { throwSamples } from "./leaf-plan.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import { createTestRepository, restore, transfer } from "./test-repository.ts";

/** A generator whose numbers are spread like true ones, and the same in every run. */
function seededRandom(seed: number): (length: number) => Uint8Array {
  let state = seed >>> 0 || 1;
  return (length) =>
    Uint8Array.from({ length }, () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 8) & 0xff;
    });
}

test("R02, R10: each piece is sampled with the probability that was asked for, and independently of the others", () => {
  const blocks = 4096;
  const leaf = { index: 0, offset: 0, lengthBytes: blocks * 4096, states: new Uint8Array(blocks) };
  const random = seededRandom(4);
  const counts: number[] = [];
  let sampled = 0;
  const rounds = 3000;
  let pieces = 0;
  for (let round = 0; round < rounds; round += 1) {
    const samples = throwSamples(leaf, 0.01, random);
    for (const [piece, isSampled] of (samples ?? []).entries()) {
      if (!isSampled) continue;
      counts[piece] = (counts[piece] ?? 0) + 1;
      sampled += 1;
    }
    pieces = Math.max(pieces, samples?.length ?? 0);
  }
  const expected = rounds * pieces * 0.01;
  expect(Math.abs(sampled - expected)).toBeLessThan(5 * Math.sqrt(expected));
  for (const count of counts) expect(Math.abs((count ?? 0) - 30)).toBeLessThan(30);
});

// Lies in n pieces of 128 KiB are found with probability 1 - (1 - share)^n: at 1 % 63 % for 100 pieces, 95 % for 300.
test.each([
  ["unchanged", "R02"],
  ["zero", "R10"],
] as const)(
  "a source that calls what changed %s (%s) is found in about as many runs as documented, and the full read is right",
  async (kind, _scenario) => {
    const disk = seededBytes(2_000_000, 5);
    const repository = await createTestRepository(createMemoryObjectStore());
    const { recordKey: previous } = await transfer(repository, createMemoryReader(disk));
    const changed = Uint8Array.from(disk, (byte) => byte ^ 1);
    const extents = [{ offset: 0, length: disk.length, kind }];
    // 16 pieces at 2 %: 28 % of the runs.
    const runs = 16;
    let found = 0;
    for (let run = 1; run <= runs; run += 1) {
      const random = seededRandom(run);
      const its = { ...repository, random: (length: number) => Buffer.from(random(length)) };
      const reader = createMemoryReader(changed, { extents });
      const more = { previous, mode: "incremental", sampleShare: 0.02 } as const;
      try {
        await transfer(its, reader, more);
      } catch (error) {
        expect(isFailure(error, "changes.unknown")).toBe(true);
        found += 1;
      }
    }
    expect(found).toBeGreaterThan(0);
    expect(found).toBeLessThan(runs / 2 + 4);
    const { recordKey } = await transfer(repository, createMemoryReader(changed), { previous });
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, changed)).toBe(0);
  },
);
