import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { NbdAddress, NbdReadOptions } from "@holdfast/shared/ports/transport";
import { createSlots } from "../slots.ts";
import { checkList, contextsOf, readExtents } from "./extents.ts";
import { openTransmission } from "./open-transmission.ts";
import type { Transmission } from "./transmission.ts";

/**
 * A disk that an NBD server exports, for reading. One connection, several reads in flight; what is longer than the
 * server takes is split, what is not aligned to its blocks is read around.
 */
export const nbdTimeoutMsDefault = 60_000;
/** Measured: larger reads gain nothing, and more in flight is slower on few cores. */
const readBytesUseful = 2 * 1024 * 1024;
const readsUseful = 8;
/** Requests in flight whatever callers do: bounds what a server is asked to hold. */
const requestsMax = 32;

export async function openNbdReader(
  address: NbdAddress,
  options: NbdReadOptions,
): Promise<DiskReader> {
  const transmission = await openTransmission({
    address,
    exportName: options.exportName,
    contexts: contextsOf(options.extents),
    signal: options.signal,
    timeoutMs: options.timeoutMs ?? nbdTimeoutMsDefault,
  });
  try {
    const { sizeBytes } = transmission.export;
    if (options.extents.by === "list") checkList(options.extents.list, sizeBytes);
    return createNbdReader(transmission, options.extents);
  } catch (error) {
    await transmission.close();
    throw error;
  }
}

function createNbdReader(transmission: Transmission, rule: NbdReadOptions["extents"]): DiskReader {
  const { sizeBytes, payloadBytesMax, blockBytesMin } = transmission.export;
  const readBytesMax = Math.min(payloadBytesMax, readBytesUseful);
  const slots = createSlots(requestsMax);

  async function read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkRange(offset, into.length, sizeBytes);
    if (into.length === 0) return;
    const end = offset + into.length;
    if (offset % blockBytesMin !== 0 || (end % blockBytesMin !== 0 && end !== sizeBytes)) {
      await readAround(offset, into, signal);
      return;
    }
    if (into.length <= readBytesMax) {
      await slots.run(() => transmission.read(offset, into, signal));
      return;
    }
    await allSettledOrThrow(
      splitRange(into.length, readBytesMax).map(({ start, end }) =>
        slots.run(() => transmission.read(offset + start, into.subarray(start, end), signal)),
      ),
    );
  }

  async function readAround(offset: number, into: Uint8Array, signal?: AbortSignal) {
    const start = offset - (offset % blockBytesMin);
    const end = Math.min(
      Math.ceil((offset + into.length) / blockBytesMin) * blockBytesMin,
      sizeBytes,
    );
    const bytes = Buffer.allocUnsafe(end - start);
    await read(start, bytes, signal);
    into.set(bytes.subarray(offset - start, offset - start + into.length));
  }

  return {
    sizeBytes,
    readsMax: readsUseful,
    readBytesMax,
    extents: (options) => readExtents(transmission, rule, options?.signal),
    read: (offset, into, options) => read(offset, into, options?.signal),
    [Symbol.asyncDispose]: () => transmission.close(),
  };
}

export function checkRange(offset: number, length: number, sizeBytes: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= sizeBytes) return;
  throw new Failure("internal", {
    message: `a range of ${length} bytes at ${offset} is outside of a disk of ${sizeBytes} bytes`,
  });
}

export function splitRange(lengthBytes: number, partBytesMax: number) {
  const parts: { readonly start: number; readonly end: number }[] = [];
  for (let start = 0; start < lengthBytes; start += partBytesMax) {
    parts.push({ start, end: Math.min(start + partBytesMax, lengthBytes) });
  }
  return parts;
}

/** Waits for all, so that nobody writes to the caller's memory afterwards; then fails with the first failure. */
export async function allSettledOrThrow(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === "rejected") throw result.reason;
  }
}
