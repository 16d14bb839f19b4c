import type { Extent } from "../domain/extent.ts";

/**
 * One disk, frozen at one moment. Reads are random access and may be many at once.
 * A read never returns fewer bytes than asked, and never invents zeros: it fails with `disk.read-failed`.
 */
export interface DiskReader extends AsyncDisposable {
  readonly sizeBytes: number;
  /** How many reads may usefully be in flight, and how long one may be, in bytes. */
  readonly readsMax: number;
  readonly readBytesMax: number;
  /** The whole disk from 0 to `sizeBytes`, in order, without gaps or overlaps. May be iterated once at a time. */
  extents(options?: { readonly signal?: AbortSignal }): AsyncIterable<Extent>;
  /** Fills `into` with the bytes at `offset`. */
  read(
    offset: number,
    into: Uint8Array,
    options?: { readonly signal?: AbortSignal },
  ): Promise<void>;
}

/** One disk to be filled. Writes are random access, out of order, many at once; what is never written reads as zeros if `startsZeroed`. */
export interface DiskWriter extends AsyncDisposable {
  readonly sizeBytes: number;
  readonly startsZeroed: boolean;
  readonly writesMax: number;
  readonly writeBytesMax: number;
  write(
    offset: number,
    data: Uint8Array,
    options?: { readonly signal?: AbortSignal },
  ): Promise<void>;
  /** Makes the range read as zeros. */
  zero(offset: number, length: number, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Everything written is durable when it resolves. */
  flush(): Promise<void>;
}
