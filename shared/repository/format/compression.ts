import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { corrupt, freeBytes } from "./bytes.ts";

const params = { [constants.ZSTD_c_compressionLevel]: 1 };

// One output buffer of the right size is half again as fast as Node's default of many small ones.
const roomBytes = 256;

/**
 * The zstd-1 form when it is at least 3 % smaller, else undefined: what hardly shrinks is not worth inflating. The result has memory
 * of its own, to be freed.
 */
export function compress(plain: Uint8Array): Uint8Array | undefined {
  const chunkSize = plain.length + (plain.length >>> 8) + roomBytes;
  const packed = zstdCompressSync(plain, { params, chunkSize });
  if (packed.length <= plain.length * 0.97) return packed;
  freeBytes(packed);
  return undefined;
}

/** Never inflates to more than `rawLength` bytes; any other length is corrupt. The result has memory of its own, to be freed. */
export function inflate(packed: Uint8Array, rawLength: number, name: string): Uint8Array {
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
