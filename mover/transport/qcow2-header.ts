import type { FileHandle } from "node:fs/promises";
import { Failure } from "@holdfast/shared/domain/failure";

/**
 * Reads a qcow2 header before any tool opens the file, so that an image from outside cannot make the tool open other
 * files. It reads at most 64 KiB and follows nothing. Layout: docs/interop/qcow2.rst of QEMU; all integers are big-endian.
 */
export type Qcow2Header = {
  readonly version: 2 | 3;
  readonly sizeBytes: number;
  readonly clusterBytes: number;
};

export const qcow2Magic = 0x514649fb;
const headerBytesMax = 64 * 1024;
const headerBytesV2 = 72;
const headerBytesV3Min = 104;
const incompatible = { dirty: 0, corrupt: 1, externalData: 2, compression: 3, extendedL2: 4 };
const incompatibleKnown = 0b11111n;
const dataFileExtension = 0x44415441;
const cryptoExtension = 0x0537be77;
const extensionsMax = 256;

/** What `parseQcow2Header` looks at; shorter if the file is. */
export async function readHeaderBytes(file: FileHandle): Promise<Buffer> {
  const bytes = Buffer.alloc(headerBytesMax);
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

export function hasQcow2Magic(bytes: Buffer): boolean {
  return bytes.length >= 4 && bytes.readUInt32BE(0) === qcow2Magic;
}

/** Fails with `unsupported` for images that need another file or a key, or that are damaged; with `input.invalid` for no qcow2. */
export function parseQcow2Header(bytes: Buffer, name: string): Qcow2Header {
  const refuse = (why: string): never => {
    throw new Failure("unsupported", { message: `${name} ${why}` });
  };
  const invalid = (why: string): never => {
    throw new Failure("input.invalid", { message: `${name} is not a usable qcow2 image: ${why}` });
  };
  if (bytes.length < headerBytesV2 || !hasQcow2Magic(bytes)) return invalid("it has no header");
  const version = bytes.readUInt32BE(4);
  if (version !== 2 && version !== 3) return invalid(`its version is ${version}`);
  if (bytes.readBigUInt64BE(8) !== 0n || bytes.readUInt32BE(16) !== 0) {
    refuse("has a backing file; flatten it first with `qemu-img convert`");
  }
  if (bytes.readUInt32BE(32) !== 0) refuse("is encrypted");
  const clusterBits = bytes.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) return invalid(`its cluster size is 2^${clusterBits}`);
  const size = bytes.readBigUInt64BE(24);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) return invalid("its size is above 2^53 bytes");
  const header = { version, sizeBytes: Number(size), clusterBytes: 2 ** clusterBits } as const;
  if (version === 3) {
    if (bytes.length < headerBytesV3Min) return invalid("its header is cut off");
    checkFeatures(bytes.readBigUInt64BE(72), refuse);
    const headerBytes = bytes.readUInt32BE(100);
    if (headerBytes < headerBytesV3Min || headerBytes % 8 !== 0 || headerBytes > bytes.length) {
      return invalid(`its header length is ${headerBytes}`);
    }
    checkExtensions({ bytes, start: headerBytes, end: 2 ** clusterBits, refuse, invalid });
  } else checkExtensions({ bytes, start: headerBytesV2, end: 2 ** clusterBits, refuse, invalid });
  return header;
}

type Refuse = (why: string) => never;

function checkFeatures(features: bigint, refuse: Refuse): void {
  const has = (bit: number): boolean => ((features >> BigInt(bit)) & 1n) === 1n;
  const unknown = features & ~incompatibleKnown;
  if (unknown !== 0n) refuse(`uses unknown qcow2 features (0x${unknown.toString(16)})`);
  if (has(incompatible.externalData)) refuse("keeps its data in another file");
  if (has(incompatible.corrupt)) refuse("is marked corrupt; check it with `qemu-img check`");
}

function checkExtensions(options: {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  readonly refuse: Refuse;
  readonly invalid: Refuse;
}): void {
  const { bytes, refuse, invalid } = options;
  const end = Math.min(options.end, bytes.length);
  let at = options.start;
  for (let count = 0; at + 8 <= end; count++) {
    if (count > extensionsMax) invalid("it has too many header extensions");
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === 0) return;
    if (type === dataFileExtension) refuse("keeps its data in another file");
    if (type === cryptoExtension) refuse("is encrypted");
    // In a cluster larger than what was read, what lies beyond cannot be told: refused rather than guessed.
    if (at + 8 + length > end) invalid("a header extension leaves the header");
    at += 8 + Math.ceil(length / 8) * 8;
  }
}
