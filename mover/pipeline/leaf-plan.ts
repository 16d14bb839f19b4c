import type { Extent } from "@holdfast/shared/domain/extent";
import { Failure } from "@holdfast/shared/domain/failure";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { entryId, type Leaf } from "@holdfast/shared/repository/extent-map/leaf";
import { blockBytes } from "@holdfast/shared/repository/format/settings";

/** What is known of each block of one leaf, from the source's extents. */
export const blockStates = { unchanged: 0, data: 1, zero: 2, unset: 255 } as const;

export type LeafExtents = {
  readonly index: number;
  /** On the disk. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** One of `blockStates` for each block. A block of which the source says several things is data. */
  readonly states: Uint8Array;
};

export type ByteRun = { readonly offset: number; readonly length: number };

/** Bytes that the source calls unchanged or zero and that are read all the same; `id` undefined: must be zeros. */
export type SampleCheck = ByteRun & {
  readonly claim: "unchanged" | "zero";
  readonly id: Uint8Array | undefined;
};

/**
 * Sorts the source's extents into leaves. What is called unchanged beyond `unchangedBytes` (the previous point's size) is data.
 * Fails with `protocol.invalid` when the extents don't cover the disk exactly.
 */
export async function* splitIntoLeaves(
  extents: AsyncIterable<Extent>,
  disk: { readonly sizeBytes: number; readonly leafBytes: number; readonly unchangedBytes: number },
): AsyncGenerator<LeafExtents> {
  const { sizeBytes, leafBytes } = disk;
  let next = 0;
  let leaf: LeafExtents | undefined;
  for await (const extent of extents) {
    const end = extent.offset + extent.length;
    if (extent.offset !== next || extent.length <= 0 || end > sizeBytes) {
      throw new Failure("protocol.invalid", {
        message: `the source lists ${extent.length} bytes at ${extent.offset}, expected ${next} of ${sizeBytes}`,
      });
    }
    while (next < end) {
      const index = Math.floor(next / leafBytes);
      leaf ??= emptyLeaf(index, disk);
      const until = Math.min(end, leaf.offset + leaf.lengthBytes);
      mark(leaf, { offset: next, length: until - next, kind: extent.kind }, disk.unchangedBytes);
      next = until;
      if (next === leaf.offset + leaf.lengthBytes) {
        yield leaf;
        leaf = undefined;
      }
    }
  }
  if (next !== sizeBytes) {
    throw new Failure("protocol.invalid", {
      message: `the source's extents end at ${next}, the disk at ${sizeBytes}`,
    });
  }
}

function emptyLeaf(
  index: number,
  disk: { readonly sizeBytes: number; readonly leafBytes: number },
): LeafExtents {
  const offset = index * disk.leafBytes;
  const lengthBytes = Math.min(disk.leafBytes, disk.sizeBytes - offset);
  const states = new Uint8Array(Math.ceil(lengthBytes / blockBytes)).fill(blockStates.unset);
  return { index, offset, lengthBytes, states };
}

function mark(leaf: LeafExtents, extent: Extent, unchangedBytes: number): void {
  const { states } = leaf;
  const from = extent.offset - leaf.offset;
  const first = Math.floor(from / blockBytes);
  const last = Math.ceil((from + extent.length) / blockBytes);
  const state = blockStates[extent.kind];
  if (extent.length === leaf.lengthBytes) states.fill(state);
  for (let block = first; block < last && extent.length < leaf.lengthBytes; block += 1) {
    const before = states[block];
    states[block] = before === blockStates.unset || before === state ? state : blockStates.data;
  }
  if (extent.kind !== "unchanged") return;
  // A last block that the previous point has only a part of counts as not in it.
  const known = Math.floor((unchangedBytes - leaf.offset) / blockBytes);
  const knownEnd = leaf.offset + leaf.lengthBytes <= unchangedBytes ? last : Math.max(known, 0);
  states.fill(blockStates.data, Math.min(Math.max(first, knownEnd), last), last);
}

/**
 * Decides with the previous point's leaf what is kept and what is read: an entry that a change touches is read and cut again in
 * whole, and so is a short neighbour, so that incrementals don't leave ever smaller chunks. Changes `states`; returns the
 * positions of the entries that stay.
 */
export function keepEntries(
  leaf: LeafExtents,
  previous: Leaf,
  chunkBytesMin: number,
): readonly number[] {
  const { states } = leaf;
  const blocksOf = (position: number): readonly [number, number] => {
    const offset = previous.offsets[position] ?? 0;
    const end = offset + (previous.lengths[position] ?? 0);
    return [Math.floor(offset / blockBytes), Math.ceil(end / blockBytes)];
  };
  const touched = new Uint8Array(previous.count);
  function touch(position: number): void {
    touched[position] = 1;
    const [first, last] = blocksOf(position);
    for (let block = first; block < Math.min(last, states.length); block += 1) {
      if (states[block] === blockStates.unchanged) states[block] = blockStates.data;
    }
  }
  for (let position = 0; position < previous.count; position += 1) {
    const [first, last] = blocksOf(position);
    const end = (previous.offsets[position] ?? 0) + (previous.lengths[position] ?? 0);
    const isChanged =
      end > leaf.lengthBytes || states.subarray(first, last).some((state) => state !== 0);
    if (isChanged) touch(position);
  }
  const absorb = (position: number): void => {
    if (touched[position] === 1 || (previous.lengths[position] ?? 0) >= chunkBytesMin) return;
    const [first, last] = blocksOf(position);
    if (states[first - 1] === blockStates.data || states[last] === blockStates.data)
      touch(position);
  };
  for (let position = 0; position < previous.count; position += 1) absorb(position);
  for (let position = previous.count - 1; position >= 0; position -= 1) absorb(position);
  return Array.from(touched.keys()).filter((position) => touched[position] === 0);
}

/** Runs of blocks in one state, in bytes on the disk. */
export function* runsOf(leaf: LeafExtents, state: number): Generator<ByteRun> {
  const { states } = leaf;
  let first = states.indexOf(state);
  while (first >= 0) {
    let last = first + 1;
    while (last < states.length && states[last] === state) last += 1;
    const offset = first * blockBytes;
    yield {
      offset: leaf.offset + offset,
      length: Math.min(last * blockBytes, leaf.lengthBytes) - offset,
    };
    first = states.indexOf(state, last);
  }
}

/** Samples are chosen in pieces of this many blocks, each by its own throw. */
const pieceBlocks = 32;

/** Which pieces of a leaf are sampled: true with probability `share`, each on its own. */
export function throwSamples(
  leaf: LeafExtents,
  share: number,
  random: RandomBytes,
): readonly boolean[] | undefined {
  if (share <= 0 || !leaf.states.some((state) => state !== blockStates.data)) return undefined;
  const pieces = Math.ceil(leaf.states.length / pieceBlocks);
  if (share >= 1) return Array.from({ length: pieces }, () => true);
  const bytes = random(pieces * 4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const sampled = Array.from(
    { length: pieces },
    (_, piece) => view.getUint32(piece * 4) < share * 2 ** 32,
  );
  return sampled.includes(true) ? sampled : undefined;
}

/** What to read and compare. An entry is sampled by the piece it begins in; the rest of what is not data must be zeros. */
export function planChecks(
  leaf: LeafExtents,
  sampled: readonly boolean[],
  previous: Leaf | undefined,
  kept: readonly number[],
): readonly SampleCheck[] {
  const checks: SampleCheck[] = [];
  const covered = new Uint8Array(leaf.states.length);
  for (const position of previous === undefined ? [] : kept) {
    if (previous === undefined) continue;
    const offset = previous.offsets[position] ?? 0;
    const length = previous.lengths[position] ?? 0;
    covered.fill(1, Math.floor(offset / blockBytes), Math.ceil((offset + length) / blockBytes));
    if (sampled[Math.floor(offset / blockBytes / pieceBlocks)] !== true) continue;
    const id = Uint8Array.from(entryId(previous, position));
    checks.push({ offset: leaf.offset + offset, length, claim: "unchanged", id });
  }
  for (const claim of ["unchanged", "zero"] as const) {
    for (let piece = 0; piece < sampled.length; piece += 1) {
      if (sampled[piece] !== true) continue;
      const states = new Uint8Array(leaf.states.length).fill(blockStates.unset);
      const last = Math.min((piece + 1) * pieceBlocks, states.length);
      for (let block = piece * pieceBlocks; block < last; block += 1) {
        if (covered[block] === 0) states[block] = leaf.states[block] ?? blockStates.unset;
      }
      for (const run of runsOf({ ...leaf, states }, blockStates[claim])) {
        checks.push({ ...run, claim, id: undefined });
      }
    }
  }
  return checks;
}
