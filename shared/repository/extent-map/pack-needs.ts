import { corrupt, createByteReader } from "../format/bytes.ts";
import { skipToLeafTable } from "./disk-record.ts";
import { visitLeafTable } from "./leaf-table.ts";

/** The packs that one disk needs, and the stored bytes that its leaves need of each. */
export type PackNeeds = {
  readonly packIds: readonly Uint8Array[];
  /** The key epochs that they are sealed under. */
  readonly epochs: readonly number[];
  /** By position in `packIds`; what several leaves share counts for each. */
  readonly storedBytes: Float64Array;
};

/**
 * Of an opened disk record, without making its leaf table: collection reads the records of all points. What was sealed is what a mover wrote; whether
 * the leaves are those of the digest is for readers to check. Fails with `object.corrupt`.
 */
export function packNeeds(record: Uint8Array): PackNeeds {
  const reader = createByteReader(record, "disk record");
  const leaves = skipToLeafTable(reader);
  let storedBytes = new Float64Array(0);
  const packs = visitLeafTable(reader, leaves, {
    onPacks: (count) => {
      storedBytes = new Float64Array(count);
    },
    onNeed: (pack, bytes) => {
      storedBytes[pack] = (storedBytes[pack] ?? 0) + bytes;
    },
    onMissing: (leaf) => {
      throw corrupt(`disk record has no leaf ${leaf}`);
    },
  });
  reader.end();
  return { ...packs, storedBytes };
}
