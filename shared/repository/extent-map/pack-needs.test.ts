import fc from "fast-check";
import { expect, test } from "vitest";
import { isFailure } from "../../domain/failure.ts";
import { toHex } from "../format/bytes.ts";
import { decodeDiskRecord, emptyLeafTable, encodeDiskRecord } from "./disk-record.ts";
import { packNeeds } from "./pack-needs.ts";

const leafBytes = 65_536;
const pack = (number: number): Uint8Array => new Uint8Array(16).fill(number);

type Leaf =
  | "hole"
  | {
      readonly its: number;
      readonly stored: readonly [number, number];
      readonly packs: readonly (readonly [number, number])[];
    };
const leaf: fc.Arbitrary<Leaf> = fc.oneof(
  fc.constant("hole" as const),
  fc.record({
    its: fc.nat(3),
    stored: fc.tuple(fc.nat(1000), fc.nat(100_000)),
    packs: fc.array(fc.tuple(fc.nat(9), fc.nat(2 ** 31)), { maxLength: 4 }),
  }),
);

function encode(leaves: readonly Leaf[]): Uint8Array {
  const table = emptyLeafTable(leaves.length * leafBytes, leafBytes);
  for (const [index, its] of leaves.entries()) {
    if (its === "hole") {
      table.set(index, "hole");
      continue;
    }
    table.set(index, {
      packId: pack(100 + its.its),
      epoch: 1,
      offset: 64,
      summaryStored: its.stored[0],
      summaryRaw: 90,
      entriesStored: its.stored[1],
      entriesRaw: 500,
      summaryId: new Uint8Array(32),
      entriesId: new Uint8Array(32),
      digest: new Uint8Array(32),
      packs: its.packs.map(([id, storedBytes]) => ({
        packId: pack(id),
        epoch: 1,
        entries: 1,
        storedBytes,
      })),
    });
  }
  return encodeDiskRecord({
    diskKey: "vda",
    sizeBytes: leaves.length * leafBytes,
    leafBytes,
    leaves: table,
    digest: new Uint8Array(32),
    stats: { bytesRead: 1, bytesNew: 2, bytesStored: 3 },
  });
}

test("says the same as the decoded record: every pack, with the sum of what its leaves need", () => {
  fc.assert(
    fc.property(fc.array(leaf, { maxLength: 20 }), (leaves) => {
      const record = encode(leaves);
      const expected = new Map<string, number>();
      const add = (id: Uint8Array, bytes: number): void =>
        void expected.set(toHex(id), (expected.get(toHex(id)) ?? 0) + bytes);
      const { leaves: table } = decodeDiskRecord(record);
      for (let index = 0; index < table.count; index += 1) {
        const ref = table.get(index);
        if (ref === undefined || ref === "hole") continue;
        add(ref.packId, ref.summaryStored + ref.entriesStored);
        for (const { packId, storedBytes } of ref.packs) add(packId, storedBytes);
      }
      const { packIds, storedBytes } = packNeeds(record);
      expect(new Map(packIds.map((id, at) => [toHex(id), storedBytes[at]]))).toEqual(expected);
    }),
  );
});

test("hostile bytes end in object.corrupt", () => {
  const good = encode([{ its: 1, stored: [9, 9], packs: [[1, 5]] }, "hole"]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(good.length),
      (changes, length) => {
        const bytes = good.slice(0, length > good.length / 2 ? good.length : length);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        try {
          packNeeds(bytes);
        } catch (error) {
          expect(isFailure(error, "object.corrupt") ? "" : error).toBe("");
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test("a record that lacks a leaf is damage", () => {
  const table = emptyLeafTable(2 * leafBytes, leafBytes);
  table.set(0, "hole");
  const record = encodeDiskRecord({
    diskKey: "vda",
    sizeBytes: 2 * leafBytes,
    leafBytes,
    leaves: table,
    digest: new Uint8Array(32),
    stats: { bytesRead: 1, bytesNew: 2, bytesStored: 3 },
  });
  expect(() => packNeeds(record)).toThrow("no leaf 1");
});
