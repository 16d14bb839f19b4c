import type { FileHandle } from "node:fs/promises";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { DiskWriter } from "@holdfast/shared/ports/disk";
import { checkRange } from "./nbd/nbd-reader.ts";
import { createSlots } from "./slots.ts";

/**
 * Writes to an open file or block device. Where nothing was written yet and the file began as zeros, zeroing does
 * nothing, so that a sparse file stays sparse.
 */
const writeBytesMax = 2 * 1024 * 1024;
const writesMax = 4;
/** Grain in which it is remembered where something was written: 128 KiB of memory for 1 TiB. */
const grainBytes = 1024 * 1024;
const zeros = Buffer.alloc(grainBytes);

export function createFileWriter(options: {
  readonly file: FileHandle;
  readonly name: string;
  readonly sizeBytes: number;
  readonly startsZeroed: boolean;
}): DiskWriter {
  const { file, name, sizeBytes, startsZeroed } = options;
  const slots = createSlots(writesMax * 2);
  const touched = new Uint8Array(Math.ceil(sizeBytes / grainBytes / 8));
  const isTouched = (grain: number): boolean =>
    ((touched[grain >>> 3] ?? 0) & (1 << (grain & 7))) !== 0;

  function touch(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / grainBytes);
    for (let grain = Math.floor(offset / grainBytes); grain <= last; grain++) {
      touched[grain >>> 3] = (touched[grain >>> 3] ?? 0) | (1 << (grain & 7));
    }
  }

  async function writeAll(offset: number, data: Uint8Array): Promise<void> {
    let done = 0;
    while (done < data.length) {
      const { bytesWritten } = await file.write(data, done, data.length - done, offset + done);
      if (bytesWritten === 0) {
        const message = `${name} took no more bytes at ${offset + done}`;
        throw new Failure("disk.write-failed", { message });
      }
      done += bytesWritten;
    }
  }

  const explained = async (offset: number, work: () => Promise<void>): Promise<void> => {
    try {
      await slots.run(work);
    } catch (error) {
      throw asFailure(error, "disk.write-failed", `cannot write ${name} at ${offset}`);
    }
  };

  return {
    sizeBytes,
    startsZeroed,
    writesMax,
    writeBytesMax,
    async write(offset, data, call) {
      call?.signal?.throwIfAborted();
      checkRange(offset, data.length, sizeBytes);
      if (data.length === 0) return;
      touch(offset, data.length);
      await explained(offset, () => writeAll(offset, data));
    },
    async zero(offset, length, call) {
      checkRange(offset, length, sizeBytes);
      const end = offset + length;
      for (let at = offset; at < end; ) {
        const grain = Math.floor(at / grainBytes);
        const next = Math.min((grain + 1) * grainBytes, end);
        if (!startsZeroed || isTouched(grain)) {
          call?.signal?.throwIfAborted();
          const [start, part] = [at, zeros.subarray(0, next - at)];
          await explained(start, () => writeAll(start, part));
        }
        at = next;
      }
    },
    async flush() {
      try {
        await file.sync();
      } catch (error) {
        throw asFailure(error, "disk.write-failed", `cannot flush ${name}`);
      }
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}
