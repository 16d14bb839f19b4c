import { Failure } from "../../domain/failure.ts";

/** Reads little-endian fields from stored bytes. Every step is checked against what is left, so a decoder allocates only what is really there. */
export type ByteReader = {
  readonly remaining: () => number;
  readonly u8: () => number;
  readonly u16: () => number;
  readonly u32: () => number;
  /** A safe integer; larger values are corrupt. */
  readonly u64: () => number;
  readonly take: (length: number) => Uint8Array;
  readonly text: () => string;
  /** `count` rows of `rowBytes` must fit in what is left; returns `count`. */
  readonly count: (count: number, rowBytes: number) => number;
  readonly end: () => void;
};

export function corrupt(message: string, details: Record<string, unknown> = {}): Failure {
  return new Failure("object.corrupt", { message, ...details });
}

export function createByteReader(bytes: Uint8Array, what: string): ByteReader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  function step(length: number): number {
    if (length < 0 || length > bytes.length - at) {
      throw corrupt(`${what} is cut: ${length} bytes expected at ${at}, ${bytes.length - at} left`);
    }
    const from = at;
    at += length;
    return from;
  }
  const take = (length: number): Uint8Array => {
    const from = step(length);
    return bytes.subarray(from, from + length);
  };
  const u16 = (): number => view.getUint16(step(2), true);
  return {
    remaining: () => bytes.length - at,
    u8: () => view.getUint8(step(1)),
    u16,
    u32: () => view.getUint32(step(4), true),
    u64: () => {
      const value = view.getBigUint64(step(8), true);
      if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw corrupt(`${what} has the number ${value}`);
      return Number(value);
    },
    take,
    text: () => Buffer.from(take(u16())).toString("utf8"),
    count: (count, rowBytes) => {
      if (count * rowBytes > bytes.length - at) {
        throw corrupt(
          `${what} claims ${count} rows of ${rowBytes} bytes, ${bytes.length - at} left`,
        );
      }
      return count;
    },
    end: () => {
      if (at !== bytes.length) throw corrupt(`${what} has ${bytes.length - at} bytes too many`);
    },
  };
}

export type ByteWriter = {
  readonly u8: (value: number) => ByteWriter;
  readonly u16: (value: number) => ByteWriter;
  readonly u32: (value: number) => ByteWriter;
  readonly u64: (value: number) => ByteWriter;
  readonly bytes: (value: Uint8Array) => ByteWriter;
  readonly text: (value: string) => ByteWriter;
  readonly done: () => Uint8Array;
};

export function createByteWriter(sizeHint = 256): ByteWriter {
  let buffer = Buffer.alloc(sizeHint);
  let at = 0;
  function step(length: number): number {
    if (at + length > buffer.length) {
      const larger = Buffer.alloc(Math.max(buffer.length * 2, at + length));
      buffer.copy(larger, 0, 0, at);
      buffer = larger;
    }
    const from = at;
    at += length;
    return from;
  }
  const writer: ByteWriter = {
    u8: (value) => {
      const from = step(1);
      buffer.writeUInt8(value, from);
      return writer;
    },
    u16: (value) => {
      const from = step(2);
      buffer.writeUInt16LE(value, from);
      return writer;
    },
    u32: (value) => {
      const from = step(4);
      buffer.writeUInt32LE(value, from);
      return writer;
    },
    u64: (value) => {
      const from = step(8);
      buffer.writeBigUInt64LE(BigInt(value), from);
      return writer;
    },
    bytes: (value) => {
      const from = step(value.length);
      buffer.set(value, from);
      return writer;
    },
    text: (value) => {
      const utf8 = Buffer.from(value, "utf8");
      return writer.u16(utf8.length).bytes(utf8);
    },
    done: () => new Uint8Array(buffer.buffer, buffer.byteOffset, at),
  };
  return writer;
}

/**
 * Gives the memory of bytes that are done with back at once. Left to the garbage collector, some hundred KiB a chunk make it run all the
 * time: it took more of a core than compressing, sealing and hashing together. Nothing else may use the same memory any more.
 */
export function freeBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  // Small buffers are cut from one that they share.
  const isShared = !(buffer instanceof ArrayBuffer) || buffer.byteLength === Buffer.poolSize;
  if (!isShared) buffer.transfer(0);
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && Buffer.compare(left, right) === 0;
}
