import { constants } from "node:fs";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { checkRange } from "./nbd/nbd-reader.ts";
import { createSlots } from "./slots.ts";

/** A regular file or a block device of this machine, read as it is. Where holes are is not known: everything is data. */
const readBytesMax = 2 * 1024 * 1024;
const readsMax = 4;

export async function openFileReader(path: string): Promise<DiskReader> {
  const file = await openForReading(path);
  try {
    const sizeBytes = await fileSize(file, path);
    return createFileReader(file, path, sizeBytes);
  } catch (error) {
    await file.close();
    throw error;
  }
}

export async function openForReading(path: string): Promise<FileHandle> {
  try {
    // Not blocking: opening a named pipe would wait for its other end.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    throw asFailure(error, isMissing ? "not-found" : "disk.read-failed", `cannot open ${path}`);
  }
}

/** Bytes of a regular file or block device; fails with `input.invalid` for anything else. */
export async function fileSize(file: FileHandle, path: string): Promise<number> {
  const info = await file.stat();
  if (info.isFile()) return info.size;
  if (!info.isBlockDevice()) {
    throw new Failure("input.invalid", { message: `${path} is no regular file or block device` });
  }
  // Linux's own numbering: 12 bits of major between two parts of the minor number.
  const major = (info.rdev >>> 8) & 0xfff;
  const minor = (info.rdev & 0xff) | ((info.rdev >>> 12) & 0xfff00);
  try {
    const sectors = Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, "utf8"));
    if (Number.isSafeInteger(sectors * 512)) return sectors * 512;
  } catch (error) {
    throw asFailure(error, "disk.read-failed", `cannot tell the size of ${path}`);
  }
  throw new Failure("disk.read-failed", { message: `cannot tell the size of ${path}` });
}

function createFileReader(file: FileHandle, path: string, sizeBytes: number): DiskReader {
  const slots = createSlots(readsMax * 2);

  async function read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkRange(offset, into.length, sizeBytes);
    let done = 0;
    while (done < into.length) {
      signal?.throwIfAborted();
      const length = Math.min(readBytesMax, into.length - done);
      const bytesRead = await readSome(into.subarray(done, done + length), offset + done);
      if (bytesRead === 0) {
        throw new Failure("disk.read-failed", {
          message: `${path} ended at ${offset + done}, before its size of ${sizeBytes} bytes: it was cut while it was read`,
        });
      }
      done += bytesRead;
    }
  }

  async function readSome(into: Uint8Array, offset: number): Promise<number> {
    try {
      return (await file.read(into, 0, into.length, offset)).bytesRead;
    } catch (error) {
      throw asFailure(error, "disk.read-failed", `cannot read ${path} at ${offset}`);
    }
  }

  return {
    sizeBytes,
    readsMax,
    readBytesMax,
    async *extents() {
      if (sizeBytes > 0) yield { offset: 0, length: sizeBytes, kind: "data" };
    },
    read: (offset, into, options) => slots.run(() => read(offset, into, options?.signal)),
    [Symbol.asyncDispose]: () => file.close(),
  };
}
