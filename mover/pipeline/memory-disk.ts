import type { Extent } from "@holdfast/shared/domain/extent";
import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader, DiskWriter } from "@holdfast/shared/ports/disk";

/** Disks in memory, for tests. They keep the ports' promises, so what runs on them runs on real ones. */
export function createMemoryReader(
  bytes: Uint8Array,
  o: {
    /** Default: everything is data. */
    readonly extents?: readonly Extent[];
    readonly readBytesMax?: number;
    readonly onRead?: (offset: number, length: number) => void;
  } = {},
): DiskReader {
  const all: readonly Extent[] =
    bytes.length === 0 ? [] : [{ offset: 0, length: bytes.length, kind: "data" }];
  const readBytesMax = o.readBytesMax ?? 256 * 1024;
  return {
    sizeBytes: bytes.length,
    readsMax: 4,
    readBytesMax,
    async *extents() {
      yield* o.extents ?? all;
    },
    async read(offset, into, options) {
      options?.signal?.throwIfAborted();
      if (offset + into.length > bytes.length || into.length > readBytesMax) {
        throw new Failure("disk.read-failed", { message: `read of ${into.length} at ${offset}` });
      }
      o.onRead?.(offset, into.length);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    async [Symbol.asyncDispose]() {},
  };
}

export type MemoryWriter = DiskWriter & {
  readonly bytes: Uint8Array;
  readonly isFlushed: () => boolean;
};

/** `fill`: what the target holds before; 0 means that it promises to start zeroed. */
export function createMemoryWriter(sizeBytes: number, fill: number): MemoryWriter {
  const bytes = new Uint8Array(sizeBytes).fill(fill);
  let flushed = true;
  function check(offset: number, length: number): void {
    if (offset >= 0 && length > 0 && offset + length <= sizeBytes) return;
    throw new Failure("disk.write-failed", { message: `write of ${length} at ${offset}` });
  }
  return {
    bytes,
    isFlushed: () => flushed,
    sizeBytes,
    startsZeroed: fill === 0,
    writesMax: 4,
    writeBytesMax: 300_000,
    async write(offset, data) {
      check(offset, data.length);
      flushed = false;
      bytes.set(data, offset);
    },
    async zero(offset, length) {
      check(offset, length);
      flushed = false;
      bytes.fill(0, offset, offset + length);
    },
    async flush() {
      flushed = true;
    },
    async [Symbol.asyncDispose]() {},
  };
}
