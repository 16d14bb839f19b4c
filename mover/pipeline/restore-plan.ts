import {
  type Leaf,
  type LeafEntry,
  leafEntries,
} from "@holdfast/shared/repository/extent-map/leaf";
import { corrupt } from "@holdfast/shared/repository/format/bytes";
import type { ByteRun } from "./leaf-plan.ts";
import type { SealedChunkPlace } from "./restore-messages.ts";

/** One ranged read of a pack, and where on the disk each of its chunks goes (often one place, several for repeated data). */
export type PackRange = ByteRun & {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly chunks: readonly (SealedChunkPlace & { readonly diskOffsets: readonly number[] })[];
};

const rangeBytesMax = 8 * 1024 * 1024;
/** Reading over a gap of this many bytes is cheaper than another request. */
const gapBytesMax = 128 * 1024;
/** So that repeated data does not make a range inflate to any size. */
const rangeRawBytesMax = 8 * 1024 * 1024;

/** Chunks that lie close together in a pack become one range. Chunks that `isWanted` denies are left out; every entry is checked. */
export function planRanges(
  leaf: Leaf,
  o: {
    readonly diskOffset: number;
    readonly chunkBytesMax: number;
    readonly isWanted?: (entry: LeafEntry) => boolean;
  },
): readonly PackRange[] {
  type Chunk = SealedChunkPlace & { diskOffsets: number[] };
  const packs = new Map<
    string,
    { packId: Uint8Array; epoch: number; chunks: Map<number, Chunk> }
  >();
  for (const entry of leafEntries(leaf)) {
    if (entry.length > o.chunkBytesMax) {
      throw corrupt(`leaf ${leaf.index} has a chunk of ${entry.length} bytes`);
    }
    if (o.isWanted?.(entry) === false) continue;
    const key = Buffer.from(entry.pack.packId).toString("latin1");
    const pack = packs.get(key) ?? { ...entry.pack, chunks: new Map<number, Chunk>() };
    packs.set(key, pack);
    const chunk: Chunk = pack.chunks.get(entry.packOffset) ?? {
      offset: entry.packOffset,
      storedLength: entry.storedLength,
      length: entry.length,
      id: entry.id,
      diskOffsets: [],
    };
    if (chunk.length !== entry.length || chunk.storedLength !== entry.storedLength) {
      throw corrupt(`leaf ${leaf.index} says two things about one chunk`);
    }
    chunk.diskOffsets.push(o.diskOffset + entry.offset);
    pack.chunks.set(entry.packOffset, chunk);
  }
  const ranges: PackRange[] = [];
  for (const { packId, epoch, chunks } of packs.values()) {
    let open: Chunk[] = [];
    let raw = 0;
    const close = (): void => {
      const first = open[0];
      const last = open.at(-1);
      if (first === undefined || last === undefined) return;
      const length = last.offset + last.storedLength - first.offset;
      ranges.push({ packId, epoch, offset: first.offset, length, chunks: open });
      open = [];
      raw = 0;
    };
    for (const chunk of [...chunks.values()].sort((left, right) => left.offset - right.offset)) {
      const first = open[0];
      const last = open.at(-1);
      if (first !== undefined && last !== undefined) {
        const gap = chunk.offset - (last.offset + last.storedLength);
        const length = chunk.offset + chunk.storedLength - first.offset;
        const isTooMuch = length > rangeBytesMax || raw + chunk.length > rangeRawBytesMax;
        if (gap < 0 || gap > gapBytesMax || isTooMuch) close();
      }
      open.push(chunk);
      raw += chunk.length;
    }
    close();
  }
  return ranges;
}

/** What no entry covers. */
export function* holesOf(leaf: Leaf, diskOffset: number): Generator<ByteRun> {
  let next = 0;
  for (let position = 0; position < leaf.count; position += 1) {
    const offset = leaf.offsets[position] ?? 0;
    if (offset > next) yield { offset: diskOffset + next, length: offset - next };
    next = offset + (leaf.lengths[position] ?? 0);
  }
  if (next < leaf.lengthBytes) yield { offset: diskOffset + next, length: leaf.lengthBytes - next };
}
