import { type ByteReader, corrupt, createByteReader, createByteWriter } from "../format/bytes.ts";
import { createLeafTable, decodeLeafTable, type LeafTable } from "./leaf-table.ts";

/** One disk of a recovery point, complete in itself; or, while a transfer runs, the leaves finished so far. */
export type DiskRecord = {
  readonly diskKey: string;
  readonly sizeBytes: number;
  readonly leafBytes: number;
  readonly leaves: LeafTable;
  /** Over the leaves' digests; all zero in a checkpoint. */
  readonly digest: Uint8Array;
  readonly stats: DiskStats;
};

/** Bytes; `bytesNew` before and `bytesStored` after compression. */
export type DiskStats = {
  readonly bytesRead: number;
  readonly bytesNew: number;
  readonly bytesStored: number;
};

const version = 1;

export function leafCount(sizeBytes: number, leafBytes: number): number {
  return Math.ceil(sizeBytes / leafBytes);
}

export function encodeDiskRecord(record: DiskRecord): Uint8Array {
  const writer = createByteWriter(4096)
    .u8(version)
    .text(record.diskKey)
    .u64(record.sizeBytes)
    .u32(record.leafBytes)
    .bytes(record.digest)
    .u64(record.stats.bytesRead)
    .u64(record.stats.bytesNew)
    .u64(record.stats.bytesStored);
  record.leaves.encode(writer);
  return writer.done();
}

export function decodeDiskRecord(bytes: Uint8Array): DiskRecord {
  const reader = createByteReader(bytes, "disk record");
  const { diskKey, sizeBytes, leafBytes, digest, stats } = decodeHead(reader);
  const leaves = decodeLeafTable(reader, leafCount(sizeBytes, leafBytes));
  reader.end();
  return { diskKey, sizeBytes, leafBytes, digest, stats, leaves };
}

function decodeHead(reader: ByteReader): Omit<DiskRecord, "leaves"> {
  if (reader.u8() !== version) throw corrupt("disk record has an unknown version");
  const diskKey = reader.text();
  const sizeBytes = reader.u64();
  const leafBytes = reader.u32();
  if (leafBytes === 0) throw corrupt("disk record has leaves of 0 bytes");
  const digest = reader.take(32);
  const stats = { bytesRead: reader.u64(), bytesNew: reader.u64(), bytesStored: reader.u64() };
  return { diskKey, sizeBytes, leafBytes, digest, stats };
}

/** Leaves the reader where the leaf table begins; returns how many leaves it must have. */
export function skipToLeafTable(reader: ByteReader): number {
  const { sizeBytes, leafBytes } = decodeHead(reader);
  return leafCount(sizeBytes, leafBytes);
}

export function emptyLeafTable(sizeBytes: number, leafBytes: number): LeafTable {
  return createLeafTable(leafCount(sizeBytes, leafBytes));
}
