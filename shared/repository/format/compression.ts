import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { corrupt, freeBytes } from "./bytes.ts";
import { createCompressContext, createInflateContext } from "./zstd-context.ts";

const level = 1;
const params = { [constants.ZSTD_c_compressionLevel]: level };

// One output buffer of the right size is half again as fast as Node's default of many small ones.
const roomBytes = 256;
const compressRoom = (length: number): number => length + (length >>> 8) + roomBytes;

/** Chunks, and most of all else, fit; what does not goes the slower way. */
const contextBytesMax = 1024 * 1024;
const compressContext = createCompressContext(level);
const inflateContext = createInflateContext();
let scratch = new Uint8Array(0);

/**
 * The zstd-1 form when it is at least 3 % smaller, else undefined: what hardly shrinks is not worth inflating. The result is only valid
 * until the next call.
 */
export function compress(plain: Uint8Array): Uint8Array | undefined {
  const packed = compressInContext(plain) ?? compressAlone(plain);
  return packed.length <= plain.length * 0.97 ? packed : undefined;
}

function compressInContext(plain: Uint8Array): Uint8Array | undefined {
  if (plain.length > contextBytesMax) return undefined;
  const room = compressRoom(plain.length);
  if (scratch.length < room) scratch = new Uint8Array(room);
  const length = compressContext.run(plain, scratch);
  return length === undefined ? undefined : scratch.subarray(0, length);
}

function compressAlone(plain: Uint8Array): Uint8Array {
  return zstdCompressSync(plain, { params, chunkSize: compressRoom(plain.length) });
}

/** Inflates to exactly all of `out`; any other length, and never more than it takes, is corrupt. */
export function inflateInto(packed: Uint8Array, out: Uint8Array, name: string): void {
  if (inflateContext.run(packed, out) === out.length) return;
  const plain = inflateAlone(packed, out.length, name);
  out.set(plain);
  freeBytes(plain);
}

/** Never inflates to more than `rawLength` bytes; any other length is corrupt. The result has memory of its own, to be freed. */
export function inflate(packed: Uint8Array, rawLength: number, name: string): Uint8Array {
  if (rawLength > contextBytesMax) return inflateAlone(packed, rawLength, name);
  const plain = Buffer.allocUnsafeSlow(rawLength);
  inflateInto(packed, plain, name);
  return plain;
}

function inflateAlone(packed: Uint8Array, rawLength: number, name: string): Uint8Array {
  let plain: Uint8Array;
  try {
    plain = zstdDecompressSync(packed, {
      chunkSize: rawLength + roomBytes,
      maxOutputLength: Math.max(rawLength, 1),
    });
  } catch (cause) {
    throw corrupt(`${name} does not inflate to its ${rawLength} bytes`, { cause });
  }
  if (plain.length !== rawLength) {
    throw corrupt(`${name} inflates to ${plain.length} bytes, expected ${rawLength}`);
  }
  return plain;
}
