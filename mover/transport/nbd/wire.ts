/**
 * Numbers and byte layouts of the NBD protocol (doc/proto.md of NetworkBlockDevice/nbd). All integers are big-endian.
 */
export const magic = {
  hello: 0x4e42444d41474943n,
  option: 0x49484156454f5054n,
  oldStyle: 0x0000420281861253n,
  optionReply: 0x0003e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

export const handshakeFlags = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const optionTypes = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReplies = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknownExport: 0x80000006,
  shutdown: 0x80000007,
  blockSizeRequired: 0x80000008,
  tooBig: 0x80000009,
} as const;

export const infoTypes = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlags = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  writeZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
} as const;

export const commands = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlags = { dontFragment: 1 << 2, requestOne: 1 << 3 } as const;

export const errorNumbers = {
  permission: 1,
  io: 5,
  invalid: 22,
  overflow: 75,
  shutdown: 108,
} as const;

export const chunkTypes = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

export const chunkFlags = { done: 1 } as const;

const errorNames: Readonly<Record<number, string>> = {
  1: "EPERM, not permitted",
  5: "EIO, input/output error",
  12: "ENOMEM, out of memory",
  22: "EINVAL, invalid request",
  28: "ENOSPC, no space left",
  75: "EOVERFLOW, too large",
  95: "ENOTSUP, not supported",
  108: "ESHUTDOWN, server is shutting down",
};

export function describeError(errorNumber: number): string {
  return errorNames[errorNumber] ?? `error ${errorNumber}`;
}

export type Request = {
  readonly command: number;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
};

const two32 = 2 ** 32;
export const requestBytes = 28;

export function encodeRequest({ command, cookie, offset, length }: Request): Buffer {
  const bytes = Buffer.allocUnsafe(requestBytes);
  bytes.writeUInt32BE(magic.request, 0);
  bytes.writeUInt16BE(0, 4);
  bytes.writeUInt16BE(command, 6);
  writeSafeInteger(bytes, cookie, 8);
  writeSafeInteger(bytes, offset, 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

export function writeSafeInteger(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / two32), at);
  bytes.writeUInt32BE(value % two32, at + 4);
}

/** A u64; NaN when it is above 2^53 - 1, so that every comparison with it is false. */
export function readSafeInteger(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32BE(at) * two32 + bytes.readUInt32BE(at + 4);
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const head = Buffer.allocUnsafe(16);
  head.writeBigUInt64BE(magic.option, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

/** A string as the options carry it: u32 length in bytes, then UTF-8. */
export function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  const head = Buffer.allocUnsafe(4);
  head.writeUInt32BE(bytes.length, 0);
  return Buffer.concat([head, bytes]);
}
