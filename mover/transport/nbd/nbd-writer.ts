import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskWriter } from "@holdfast/shared/ports/disk";
import type { NbdAddress, NbdWriteOptions } from "@holdfast/shared/ports/transport";
import { createSlots } from "../slots.ts";
import { allSettledOrThrow, checkRange, nbdTimeoutMsDefault, splitRange } from "./nbd-reader.ts";
import { openTransmission } from "./open-transmission.ts";
import type { Transmission } from "./transmission.ts";

/** A disk that an NBD server exports, for writing. Writes may be many at once, in any order. */
const writeBytesUseful = 2 * 1024 * 1024;
const writesUseful = 8;
const requestsMax = 32;
const zeroBytesMax = 1024 * 1024 * 1024;
const zeros = Buffer.alloc(1024 * 1024);

export async function openNbdWriter(
  address: NbdAddress,
  options: NbdWriteOptions,
): Promise<DiskWriter> {
  const transmission = await openTransmission({
    address,
    exportName: options.exportName,
    contexts: [],
    signal: options.signal,
    timeoutMs: options.timeoutMs ?? nbdTimeoutMsDefault,
  });
  if (transmission.export.isReadOnly) {
    await transmission.close();
    throw new Failure("target.refused", {
      message: `the NBD export ${JSON.stringify(options.exportName)} is read-only`,
    });
  }
  return createNbdWriter(transmission, options.startsZeroed);
}

function createNbdWriter(transmission: Transmission, startsZeroed: boolean): DiskWriter {
  const { sizeBytes, payloadBytesMax, blockBytesMin, canFlush, canWriteZeroes } =
    transmission.export;
  const writeBytesMax = Math.min(payloadBytesMax, writeBytesUseful);
  const slots = createSlots(requestsMax);

  function check(offset: number, length: number): void {
    checkRange(offset, length, sizeBytes);
    const end = offset + length;
    if (offset % blockBytesMin === 0 && (end % blockBytesMin === 0 || end === sizeBytes)) return;
    // Reading and writing back what surrounds it would race with the neighbours' writes.
    throw new Failure("unsupported", {
      message: `the NBD server takes writes in whole blocks of ${blockBytesMin} bytes only, not ${length} at ${offset}`,
    });
  }

  async function inParts(
    length: number,
    partBytesMax: number,
    work: (start: number, end: number) => Promise<void>,
  ): Promise<void> {
    const parts = splitRange(length, partBytesMax);
    await allSettledOrThrow(parts.map(({ start, end }) => slots.run(() => work(start, end))));
  }

  return {
    sizeBytes,
    startsZeroed,
    writesMax: writesUseful,
    writeBytesMax,
    async write(offset, data, options) {
      options?.signal?.throwIfAborted();
      check(offset, data.length);
      await inParts(data.length, writeBytesMax, (start, end) =>
        transmission.write(offset + start, data.subarray(start, end)),
      );
    },
    async zero(offset, length, options) {
      check(offset, length);
      const partBytes = canWriteZeroes ? zeroBytesMax : Math.min(zeros.length, writeBytesMax);
      // Whole disks may be one range: a part at a time, so that no list of parts grows with it.
      for (let done = 0; done < length; done += partBytes) {
        options?.signal?.throwIfAborted();
        const part = Math.min(partBytes, length - done);
        await slots.run(() =>
          canWriteZeroes
            ? transmission.writeZeroes(offset + done, part)
            : transmission.write(offset + done, zeros.subarray(0, part)),
        );
      }
    },
    async flush() {
      // A server without flush keeps nothing back: what it has acknowledged is as durable as it gets.
      if (canFlush) await transmission.flush();
    },
    [Symbol.asyncDispose]: () => transmission.close(),
  };
}
