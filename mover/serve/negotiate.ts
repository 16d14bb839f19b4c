import type { Duplex } from "node:stream";
import { Failure } from "@holdfast/shared/domain/failure";
import {
  handshakeFlags,
  infoTypes,
  magic,
  optionReplies,
  optionTypes,
  transmissionFlags,
  writeSafeInteger,
} from "../transport/nbd/wire.ts";
import type { Inbound } from "./inbound.ts";
import {
  allocationContext,
  allocationContextId,
  blockBytesPreferred,
  type NbdDisk,
  readBytesMax,
} from "./nbd-export.ts";

/** One connection's bytes in both directions; TLS replaces it by another one. */
export type Wire = { readonly stream: Duplex; readonly inbound: Inbound };

/** What a client chose. */
export type Agreement = {
  readonly wire: Wire;
  readonly disk: NbdDisk;
  readonly hasStructuredReplies: boolean;
  readonly hasBlockStatus: boolean;
};

export type Negotiation = {
  readonly disks: readonly NbdDisk[];
  /** Present: nothing but this is answered before. */
  readonly startTls: ((wire: Wire) => Promise<Wire>) | undefined;
};

const optionBytesMax = 32 * 1024;
const nameBytesMax = 4096;
/** More than any client has reason to send; the handshake has a time limit as well. */
const optionsMax = 256;
const queriesMax = 64;

/**
 * The handshake's part of one connection (fixed newstyle). Undefined: the client said goodbye. Fails with `protocol.invalid` for what no
 * client should send; the connection is of no use then.
 */
export async function negotiate(raw: Wire, o: Negotiation): Promise<Agreement | undefined> {
  const hello = Buffer.alloc(18);
  hello.writeBigUInt64BE(magic.hello, 0);
  hello.writeBigUInt64BE(magic.option, 8);
  hello.writeUInt16BE(handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes, 16);
  raw.stream.write(hello);
  const flags = (await raw.inbound.read(4)).readUInt32BE(0);
  if ((flags & ~(handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes)) !== 0) {
    throw invalid(`unknown handshake flags ${flags}`);
  }
  const session: Session = {
    ...o,
    wire: raw,
    isSecure: o.startTls === undefined,
    sendsZeroes: (flags & handshakeFlags.noZeroes) === 0,
    hasStructuredReplies: false,
    statusOf: undefined,
  };
  for (let count = 0; count < optionsMax; count += 1) {
    const head = await session.wire.inbound.read(16);
    if (head.readBigUInt64BE(0) !== magic.option) throw invalid("an option without its magic");
    const option = head.readUInt32BE(8);
    const length = head.readUInt32BE(12);
    if (length > optionBytesMax) throw invalid(`option ${option} has ${length} bytes`);
    const end = await answerOption(session, option, await session.wire.inbound.read(length));
    if (end === "goodbye") return undefined;
    if (end !== undefined) {
      const { wire, hasStructuredReplies, statusOf } = session;
      return { wire, disk: end, hasStructuredReplies, hasBlockStatus: statusOf === end };
    }
  }
  throw invalid(`more than ${optionsMax} options`);
}

type Session = Negotiation & {
  wire: Wire;
  isSecure: boolean;
  readonly sendsZeroes: boolean;
  hasStructuredReplies: boolean;
  /** The disk that the client chose block status for. */
  statusOf: NbdDisk | undefined;
};

/** Returns the disk when the handshake is over. */
async function answerOption(
  session: Session,
  option: number,
  data: Buffer,
): Promise<NbdDisk | "goodbye" | undefined> {
  const reply = (type: number, body?: Buffer): undefined => send(session, option, type, body);
  if (option === optionTypes.abort) {
    reply(optionReplies.ack);
    return "goodbye";
  }
  if (option === optionTypes.startTls) return await secure(session, data);
  if (!session.isSecure) {
    if (option === optionTypes.exportName) throw invalid("the client asked for a disk before TLS");
    return reply(optionReplies.tlsRequired, Buffer.from("this server speaks TLS only"));
  }
  switch (option) {
    case optionTypes.exportName:
      return exportByName(session, data);
    case optionTypes.list:
      if (data.length > 0) return reply(optionReplies.invalid);
      for (const { name } of session.disks) reply(optionReplies.server, withLength(name));
      return reply(optionReplies.ack);
    case optionTypes.info:
    case optionTypes.go:
      return describeExport(session, option, data);
    case optionTypes.structuredReply:
      if (data.length > 0) return reply(optionReplies.invalid);
      session.hasStructuredReplies = true;
      return reply(optionReplies.ack);
    case optionTypes.listMetaContext:
    case optionTypes.setMetaContext:
      return chooseContexts(session, option, data);
    default:
      return reply(optionReplies.unsupported);
  }
}

async function secure(session: Session, data: Buffer): Promise<undefined> {
  const option = optionTypes.startTls;
  if (session.startTls === undefined) return send(session, option, optionReplies.unsupported);
  if (data.length > 0 || session.isSecure) return send(session, option, optionReplies.invalid);
  send(session, option, optionReplies.ack);
  session.wire = await session.startTls(session.wire);
  session.isSecure = true;
  session.hasStructuredReplies = false;
  session.statusOf = undefined;
}

function exportByName(session: Session, data: Buffer): NbdDisk {
  const name = data.toString("utf8");
  const disk = findDisk(session, name);
  // This old option has no way to say no.
  if (disk === undefined) throw invalid(`there is no disk ${JSON.stringify(name.slice(0, 80))}`);
  const body = Buffer.alloc(session.sendsZeroes ? 134 : 10);
  writeSafeInteger(body, disk.sizeBytes, 0);
  body.writeUInt16BE(flagsOf(session), 8);
  session.wire.stream.write(body);
  return disk;
}

function describeExport(session: Session, option: number, data: Buffer): NbdDisk | undefined {
  const fields = createFields(data);
  const name = fields.text();
  const wanted = Array.from({ length: fields.u16(data.length / 2) }, () => fields.u16());
  if (!fields.isRight()) return send(session, option, optionReplies.invalid);
  const disk = findDisk(session, name);
  if (disk === undefined) {
    const names = session.disks.map((known) => known.name).join(", ");
    return send(session, option, optionReplies.unknownExport, Buffer.from(`there is: ${names}`));
  }
  const info = (type: number, body: Buffer): undefined =>
    send(session, option, optionReplies.info, Buffer.concat([u16(type), body]));
  const size = Buffer.alloc(10);
  writeSafeInteger(size, disk.sizeBytes, 0);
  size.writeUInt16BE(flagsOf(session), 8);
  info(infoTypes.export, size);
  if (wanted.includes(infoTypes.name)) info(infoTypes.name, Buffer.from(disk.name));
  if (wanted.includes(infoTypes.description)) {
    info(infoTypes.description, Buffer.from(disk.description));
  }
  if (wanted.includes(infoTypes.blockSize)) {
    info(infoTypes.blockSize, Buffer.concat([u32(1), u32(blockBytesPreferred), u32(readBytesMax)]));
  }
  send(session, option, optionReplies.ack);
  return option === optionTypes.go ? disk : undefined;
}

function chooseContexts(session: Session, option: number, data: Buffer): undefined {
  const fields = createFields(data);
  const name = fields.text();
  const count = fields.u32(queriesMax);
  const queries = Array.from({ length: count }, () => fields.text());
  const isSet = option === optionTypes.setMetaContext;
  if (!fields.isRight() || (isSet && !session.hasStructuredReplies)) {
    return send(session, option, optionReplies.invalid);
  }
  const disk = findDisk(session, name);
  if (isSet) session.statusOf = undefined;
  if (disk === undefined) return send(session, option, optionReplies.unknownExport);
  const isWanted =
    queries.includes(allocationContext) ||
    (!isSet && (queries.length === 0 || queries.includes("base:")));
  if (isWanted) {
    const body = Buffer.concat([
      u32(isSet ? allocationContextId : 0),
      Buffer.from(allocationContext),
    ]);
    send(session, option, optionReplies.metaContext, body);
    if (isSet) session.statusOf = disk;
  }
  return send(session, option, optionReplies.ack);
}

/** The only disk goes by the empty name as well. */
function findDisk({ disks }: Session, name: string): NbdDisk | undefined {
  const [only] = disks;
  if (name === "" && disks.length === 1) return only;
  return disks.find((disk) => disk.name === name);
}

function flagsOf({ hasStructuredReplies }: Session): number {
  const { hasFlags, readOnly, canMultiConn, sendDf } = transmissionFlags;
  return hasFlags | readOnly | canMultiConn | (hasStructuredReplies ? sendDf : 0);
}

function send({ wire }: Session, option: number, type: number, body?: Buffer): undefined {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(magic.optionReply, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(body?.length ?? 0, 16);
  wire.stream.write(body === undefined ? head : Buffer.concat([head, body]));
}

/** Fields of an option; what is cut or too long shows at the end, in `isRight`. */
function createFields(data: Buffer) {
  let at = 0;
  let isRight = true;
  function number(bytes: 2 | 4, max: number): number {
    const value = isRight && at + bytes <= data.length ? data.readUIntBE(at, bytes) : max + 1;
    at += bytes;
    if (value <= max) return value;
    isRight = false;
    return 0;
  }
  return {
    u16: (max = 0xffff) => number(2, max),
    u32: (max: number) => number(4, max),
    text(): string {
      const length = number(4, nameBytesMax);
      const text = data.subarray(at, at + length);
      at += length;
      return text.toString("utf8");
    },
    isRight: () => isRight && at === data.length,
  };
}

function invalid(what: string): Failure {
  return new Failure("protocol.invalid", { message: `the client broke the protocol: ${what}` });
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
