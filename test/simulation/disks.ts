import type { Extent } from "@holdfast/shared/domain/extent";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { createMemoryReader } from "../../mover/pipeline/memory-disk.ts";
import type { Process } from "./process.ts";
import type { Seeded } from "./seeded.ts";

export const blockBytes = 4096;
/** Few, so that disks have contents in common. */
const contents = 64;

/** A block of one of some contents; 0 is a block of zeros. */
function fillBlock(disk: Uint8Array, block: number, content: number): void {
  const from = block * blockBytes;
  const to = Math.min(from + blockBytes, disk.length);
  if (content === 0) {
    disk.fill(0, from, to);
    return;
  }
  const words = new Uint32Array(disk.buffer, disk.byteOffset + from, (to - from) >> 2);
  // Enough for every block to be cut in its own way; the rest is alike, so that it packs well.
  for (let word = 0; word < words.length; word += 1) {
    words[word] = Math.imul(content * 0x10001 + (word % 61), 0x9e3779b1);
  }
}

export function newDisk(seeded: Seeded): Uint8Array {
  const disk = new Uint8Array(seeded.between(17, 48) * blockBytes - (seeded.chance(0.3) ? 512 : 0));
  changeDisk(disk, seeded, Math.ceil(disk.length / blockBytes));
  return disk;
}

/** Changes up to so many blocks. */
export function changeDisk(disk: Uint8Array, seeded: Seeded, changes: number): void {
  const blocks = Math.ceil(disk.length / blockBytes);
  for (let change = 0; change < changes; change += 1) {
    const block = seeded.below(blocks);
    fillBlock(disk, block, seeded.chance(0.2) ? 0 : seeded.below(contents));
  }
}

/** Reads a snapshot, in the process that reads it. `before`: what a block must equal to be called unchanged. */
export function createDiskReader(o: {
  readonly process: Process;
  readonly bytes: Uint8Array;
  readonly before: Uint8Array | undefined;
  readonly seeded: Seeded;
}): DiskReader {
  const { process, bytes, before, seeded } = o;
  const extents = before === undefined ? undefined : changedExtents(bytes, before, seeded);
  const reader = createMemoryReader(bytes, {
    ...(extents === undefined ? {} : { extents }),
    readBytesMax: 32 * 1024,
  });
  return {
    ...reader,
    read: async (offset, into, options) => {
      await process.pass(`disk read at ${offset}`, seeded.between(1, 30), options?.signal);
      await reader.read(offset, into, options);
    },
  };
}

/** Exact, or saying of some more blocks that they changed. */
function changedExtents(bytes: Uint8Array, before: Uint8Array, seeded: Seeded): readonly Extent[] {
  const extents: { offset: number; length: number; kind: Extent["kind"] }[] = [];
  const extra = seeded.chance(0.3) ? 0.1 : 0;
  for (let offset = 0; offset < bytes.length; offset += blockBytes) {
    const length = Math.min(blockBytes, bytes.length - offset);
    const block = bytes.subarray(offset, offset + length);
    const isSame =
      offset + length <= before.length &&
      Buffer.compare(block, before.subarray(offset, offset + length)) === 0;
    const isZero = block.every((byte) => byte === 0);
    const kind =
      isSame && !seeded.chance(extra)
        ? "unchanged"
        : isZero && seeded.chance(0.5)
          ? "zero"
          : "data";
    const last = extents.at(-1);
    if (last?.kind === kind) last.length += length;
    else extents.push({ offset, length, kind });
  }
  return extents;
}
