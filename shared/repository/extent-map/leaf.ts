import { strict as assert } from "node:assert";
import { idBytes } from "../chunk/keyed-hash.ts";
import { corrupt, createByteReader, createByteWriter } from "../format/bytes.ts";

/**
 * One leaf of a disk's extent map: where the chunks of one fixed range of the disk lie. What no entry covers is a hole
 * and reads as zeros. A leaf is stored as two records: a summary (the packs it needs, and how much of each) and the
 * entries, so that garbage collection reads summaries only. Entries rise and never overlap, by construction of the encoding.
 */
export type Leaf = {
  /** The leaf covers the disk from `index * leafBytes` on, for `lengthBytes`. */
  readonly index: number;
  readonly lengthBytes: number;
  readonly packs: readonly LeafPack[];
  readonly count: number;
  /** Offsets within the leaf. */
  readonly offsets: Uint32Array;
  readonly lengths: Uint32Array;
  /** Positions in `packs`. */
  readonly packNumbers: Uint32Array;
  readonly packOffsets: Uint32Array;
  readonly storedLengths: Uint32Array;
  /** `count` times 32 bytes. */
  readonly ids: Uint8Array;
};

export type LeafPack = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  /** Entries of this leaf in that pack, and their stored bytes. */
  readonly entries: number;
  readonly storedBytes: number;
};

export type LeafEntry = {
  readonly offset: number;
  readonly length: number;
  readonly id: Uint8Array;
  readonly pack: { readonly packId: Uint8Array; readonly epoch: number };
  readonly packOffset: number;
  readonly storedLength: number;
};

const version = 1;
const packRowBytes = 16 + 4 + 4 + 8;
const entryRowBytes = 5 * 4 + idBytes;

export function entryId(leaf: Leaf, index: number): Uint8Array {
  return leaf.ids.subarray(index * idBytes, (index + 1) * idBytes);
}

export function* leafEntries(leaf: Leaf): Generator<LeafEntry> {
  for (let index = 0; index < leaf.count; index += 1) {
    const pack = leaf.packs[leaf.packNumbers[index] ?? 0];
    assert(pack !== undefined);
    yield {
      offset: leaf.offsets[index] ?? 0,
      length: leaf.lengths[index] ?? 0,
      id: entryId(leaf, index),
      pack,
      packOffset: leaf.packOffsets[index] ?? 0,
      storedLength: leaf.storedLengths[index] ?? 0,
    };
  }
}

/** `entries` in disk order. */
export function encodeLeaf(o: {
  readonly index: number;
  readonly lengthBytes: number;
  readonly entries: readonly LeafEntry[];
}): { readonly summary: Uint8Array; readonly entries: Uint8Array } {
  const numbers = new Map<string, number>();
  const packs: { packId: Uint8Array; epoch: number; entries: number; storedBytes: number }[] = [];
  const columns = Array.from({ length: 5 }, () => new Uint32Array(o.entries.length));
  const [gaps, lengths, packNumbers, packOffsets, storedLengths] = columns;
  assert(gaps && lengths && packNumbers && packOffsets && storedLengths);
  let next = 0;
  for (const [position, entry] of o.entries.entries()) {
    const key = Buffer.from(entry.pack.packId).toString("latin1");
    let number = numbers.get(key);
    if (number === undefined) {
      number = packs.length;
      numbers.set(key, number);
      packs.push({ ...entry.pack, entries: 0, storedBytes: 0 });
    }
    const pack = packs[number];
    assert(pack !== undefined && entry.offset >= next);
    pack.entries += 1;
    pack.storedBytes += entry.storedLength;
    gaps[position] = entry.offset - next;
    lengths[position] = entry.length;
    packNumbers[position] = number;
    packOffsets[position] = entry.packOffset;
    storedLengths[position] = entry.storedLength;
    next = entry.offset + entry.length;
  }
  assert(next <= o.lengthBytes);
  const summary = createByteWriter(64 + packs.length * packRowBytes)
    .u8(version)
    .u64(o.index)
    .u32(o.lengthBytes)
    .u32(o.entries.length)
    .u32(packs.length);
  for (const pack of packs) {
    summary.bytes(pack.packId).u32(pack.epoch).u32(pack.entries).u64(pack.storedBytes);
  }
  const rows = createByteWriter(16 + o.entries.length * entryRowBytes).u8(version);
  for (const column of columns) for (const value of column) rows.u32(value);
  for (const entry of o.entries) rows.bytes(entry.id);
  return { summary: summary.done(), entries: rows.done() };
}

export type LeafSummary = Pick<Leaf, "index" | "lengthBytes" | "packs" | "count">;

export function decodeLeafSummary(summary: Uint8Array): LeafSummary {
  const reader = createByteReader(summary, "leaf summary");
  if (reader.u8() !== version) throw corrupt("leaf summary has an unknown version");
  const index = reader.u64();
  const lengthBytes = reader.u32();
  const count = reader.u32();
  const packCount = reader.count(reader.u32(), packRowBytes);
  const packs: LeafPack[] = [];
  for (let number = 0; number < packCount; number += 1) {
    packs.push({
      packId: reader.take(16),
      epoch: reader.u32(),
      entries: reader.u32(),
      storedBytes: reader.u64(),
    });
  }
  reader.end();
  return { index, lengthBytes, packs, count };
}

export function decodeLeaf(o: {
  readonly summary: Uint8Array;
  readonly entries: Uint8Array;
}): Leaf {
  const head = decodeLeafSummary(o.summary);
  const reader = createByteReader(o.entries, `leaf ${head.index}`);
  if (reader.u8() !== version) throw corrupt("leaf has an unknown version");
  const count = reader.count(head.count, entryRowBytes);
  const column = (): Uint32Array => Uint32Array.from({ length: count }, reader.u32);
  const gaps = column();
  const leaf: Leaf = {
    ...head,
    lengths: column(),
    packNumbers: column(),
    packOffsets: column(),
    storedLengths: column(),
    ids: reader.take(count * idBytes),
    offsets: gaps,
  };
  reader.end();
  let next = 0;
  for (let position = 0; position < count; position += 1) {
    const length = leaf.lengths[position] ?? 0;
    const offset = next + (gaps[position] ?? 0);
    next = offset + length;
    if (length === 0 || next > leaf.lengthBytes) {
      throw corrupt(`entry ${position} of leaf ${leaf.index} leaves its range`);
    }
    if ((leaf.packNumbers[position] ?? 0) >= leaf.packs.length) {
      throw corrupt(`entry ${position} of leaf ${leaf.index} names no pack`);
    }
    leaf.offsets[position] = offset;
  }
  return leaf;
}
