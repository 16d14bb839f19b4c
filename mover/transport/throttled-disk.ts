import type { DiskReader, DiskWriter } from "@holdfast/shared/ports/disk";
import { type Throttle, takeAll } from "@holdfast/shared/storage/throttle";

/** What disks' traffic is measured by; each list may hold several limits, and all of them hold. */
export type DiskThrottles = {
  /** Bytes out of disks, and into them. */
  readonly read: readonly Throttle[];
  readonly write: readonly Throttle[];
  /** Reads, writes and zeroings of any length. */
  readonly requests: readonly Throttle[];
};

/** The same disk within limits. */
export function throttledReader<Reader extends DiskReader>(
  reader: Reader,
  { read, requests }: DiskThrottles,
): Reader {
  return {
    ...reader,
    async read(offset, into, call) {
      await takeAll(requests, 1, call?.signal);
      await takeAll(read, into.length, call?.signal);
      await reader.read(offset, into, call);
    },
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

/** The same disk within limits. Zeroing moves no bytes and counts as one request. */
export function throttledWriter<Writer extends DiskWriter>(
  writer: Writer,
  { write, requests }: DiskThrottles,
): Writer {
  return {
    ...writer,
    async write(offset, data, call) {
      await takeAll(requests, 1, call?.signal);
      await takeAll(write, data.length, call?.signal);
      await writer.write(offset, data, call);
    },
    async zero(offset, length, call) {
      await takeAll(requests, 1, call?.signal);
      await writer.zero(offset, length, call);
    },
    [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
  };
}
