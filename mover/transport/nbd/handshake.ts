import { Failure } from "@holdfast/shared/domain/failure";
import type { ByteChannel } from "./byte-channel.ts";
import type { ByteQueue } from "./byte-queue.ts";
import {
  encodeOption,
  encodeString,
  handshakeFlags,
  infoTypes,
  magic,
  optionReplies,
  optionTypes,
  readSafeInteger,
  transmissionFlags,
} from "./wire.ts";

/** What a server offers after the handshake. Sizes are bytes. */
export type NbdExport = {
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  readonly canFlush: boolean;
  readonly canWriteZeroes: boolean;
  readonly hasStructuredReplies: boolean;
  /** Offsets and lengths must be multiples of this. */
  readonly blockBytesMin: number;
  readonly payloadBytesMax: number;
  /** Context name to the id that block status chunks carry. */
  readonly contexts: ReadonlyMap<string, number>;
};

export type HandshakeRequest = {
  readonly exportName: string;
  /** All of them must be there. */
  readonly contexts: readonly string[];
};

const payloadBytesMaxDefault = 32 * 1024 * 1024;
const blockBytesMinLimit = 64 * 1024;
const optionReplyBytesMax = 32 * 1024;
/** More replies to one option than any server has reason to send. */
const optionRepliesMax = 256;
const nameBytesMax = 4096;

type Wire = { readonly channel: ByteChannel; readonly queue: ByteQueue };

/** Reads the server's hello and answers it. Fails with `unsupported` for anything but fixed newstyle. */
export async function greet({ channel, queue }: Wire): Promise<void> {
  const hello = await queue.read(16);
  if (hello.readBigUInt64BE(0) !== magic.hello) {
    throw invalid(channel, "it does not greet as an NBD server does");
  }
  const style = hello.readBigUInt64BE(8);
  if (style === magic.oldStyle) {
    throw new Failure("unsupported", {
      message: `${channel.peer} speaks the old style of NBD, which has no named exports; use a newer server`,
    });
  }
  if (style !== magic.option) throw invalid(channel, "its hello has an unknown style");
  const flags = (await queue.read(2)).readUInt16BE(0);
  if ((flags & handshakeFlags.fixedNewstyle) === 0) {
    throw new Failure("unsupported", {
      message: `${channel.peer} does not speak fixed newstyle NBD; use a newer server`,
    });
  }
  const answer = Buffer.alloc(4);
  answer.writeUInt32BE(flags & (handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes), 0);
  channel.send(answer);
}

/** Asks for TLS. A server that refuses ends the connection: never a downgrade. */
export async function requestTls(wire: Wire): Promise<void> {
  const { channel, queue } = wire;
  const result = await callOption(wire, optionTypes.startTls, new Uint8Array(0));
  if (result.error !== undefined) {
    throw new Failure("auth.denied", {
      message: `${channel.peer} refuses TLS, which is required for it: ${result.error.text}`,
    });
  }
  if (queue.leftoverBytes > 0) throw invalid(channel, "it sent plain bytes after agreeing to TLS");
}

/** Everything from structured replies to GO; afterwards the connection is in the transmission phase. */
export async function negotiate(wire: Wire, request: HandshakeRequest): Promise<NbdExport> {
  const { channel } = wire;
  if (Buffer.byteLength(request.exportName) > nameBytesMax) {
    throw new Failure("input.invalid", { message: "the export name is longer than 4096 bytes" });
  }
  const structured = await callOption(wire, optionTypes.structuredReply, new Uint8Array(0));
  if (structured.error?.type === optionReplies.tlsRequired) throw tlsRequired(channel);
  const hasStructuredReplies = structured.error === undefined;
  const contexts =
    request.contexts.length === 0
      ? new Map<string, number>()
      : await selectContexts(wire, request, hasStructuredReplies);
  return { ...(await go(wire, request.exportName)), hasStructuredReplies, contexts };
}

async function selectContexts(
  wire: Wire,
  { exportName, contexts }: HandshakeRequest,
  hasStructuredReplies: boolean,
): Promise<ReadonlyMap<string, number>> {
  const { channel } = wire;
  const found = new Map<string, number>();
  if (hasStructuredReplies) {
    const count = Buffer.allocUnsafe(4);
    count.writeUInt32BE(contexts.length, 0);
    const data = Buffer.concat([encodeString(exportName), count, ...contexts.map(encodeString)]);
    const result = await callOption(wire, optionTypes.setMetaContext, data);
    if (result.error !== undefined && result.error.type !== optionReplies.unsupported) {
      throw optionFailure(channel, result.error, exportName);
    }
    for (const reply of result.replies) {
      if (reply.type !== optionReplies.metaContext || reply.data.length < 5) continue;
      found.set(reply.data.toString("utf8", 4), reply.data.readUInt32BE(0));
    }
  }
  const missing = contexts.filter((context) => !found.has(context));
  if (missing.length > 0) {
    // A server acknowledges the whole request and leaves out what it does not know.
    throw new Failure("changes.unknown", {
      message: `${channel.peer} does not offer ${missing.join(" and ")} for export ${JSON.stringify(exportName)}`,
      missing,
    });
  }
  if (new Set(found.values()).size !== found.size) {
    throw invalid(channel, "it gave one id to two contexts");
  }
  return found;
}

async function go(wire: Wire, exportName: string) {
  const { channel, queue } = wire;
  const wanted = Buffer.from([0, 1, 0, infoTypes.blockSize]);
  const result = await callOption(
    wire,
    optionTypes.go,
    Buffer.concat([encodeString(exportName), wanted]),
  );
  if (result.error !== undefined) throw optionFailure(channel, result.error, exportName);
  if (queue.leftoverBytes > 0) throw invalid(channel, "it sent bytes that nobody asked for");
  let sizeBytes: number | undefined;
  let flags = 0;
  let blockBytesMin = 1;
  let payloadBytesMax = payloadBytesMaxDefault;
  for (const { type, data } of result.replies) {
    if (type !== optionReplies.info || data.length < 2) continue;
    const info = data.readUInt16BE(0);
    if (info === infoTypes.export && data.length === 12) {
      sizeBytes = readSafeInteger(data, 2);
      flags = data.readUInt16BE(10);
    } else if (info === infoTypes.blockSize && data.length === 14) {
      blockBytesMin = data.readUInt32BE(2);
      payloadBytesMax = Math.min(data.readUInt32BE(10), payloadBytesMaxDefault);
    }
  }
  if (sizeBytes === undefined) throw invalid(channel, "it gave no size for the export");
  if (!Number.isSafeInteger(sizeBytes)) throw invalid(channel, "its export's size is above 2^53");
  if ((flags & transmissionFlags.hasFlags) === 0) throw invalid(channel, "it gave no export flags");
  const isPowerOfTwo = blockBytesMin > 0 && (blockBytesMin & (blockBytesMin - 1)) === 0;
  if (!isPowerOfTwo || blockBytesMin > blockBytesMinLimit || payloadBytesMax < blockBytesMin) {
    throw invalid(channel, `its block sizes (${blockBytesMin}, ${payloadBytesMax}) make no sense`);
  }
  return {
    sizeBytes,
    isReadOnly: (flags & transmissionFlags.readOnly) !== 0,
    canFlush: (flags & transmissionFlags.flush) !== 0,
    canWriteZeroes: (flags & transmissionFlags.writeZeroes) !== 0,
    blockBytesMin,
    payloadBytesMax: payloadBytesMax - (payloadBytesMax % blockBytesMin),
  };
}

type OptionError = { readonly type: number; readonly text: string };
type OptionResult = {
  readonly replies: readonly { readonly type: number; readonly data: Buffer }[];
  readonly error: OptionError | undefined;
};

/** One option at a time: sends it, and collects its replies up to the final one. */
async function callOption(
  { channel, queue }: Wire,
  option: number,
  data: Uint8Array,
): Promise<OptionResult> {
  channel.send(encodeOption(option, data));
  const replies: { type: number; data: Buffer }[] = [];
  while (replies.length < optionRepliesMax) {
    const head = await queue.read(20);
    if (head.readBigUInt64BE(0) !== magic.optionReply || head.readUInt32BE(8) !== option) {
      throw invalid(channel, "it answered an option with something else");
    }
    const type = head.readUInt32BE(12);
    const length = head.readUInt32BE(16);
    if (length > optionReplyBytesMax) {
      throw invalid(channel, `it announced an option reply of ${length} bytes`);
    }
    const bytes = length === 0 ? Buffer.alloc(0) : await queue.read(length);
    if (type === optionReplies.ack) return { replies, error: undefined };
    if (type >= 0x80000000) {
      const text = bytes.toString("utf8").slice(0, 500) || `error 0x${type.toString(16)}`;
      return { replies, error: { type, text } };
    }
    replies.push({ type, data: bytes });
  }
  throw invalid(channel, `it sent more than ${optionRepliesMax} replies to one option`);
}

function optionFailure(channel: ByteChannel, error: OptionError, exportName: string): Failure {
  const where = `${channel.peer}, export ${JSON.stringify(exportName)}`;
  switch (error.type) {
    case optionReplies.unknownExport:
      return new Failure("not-found", {
        message: `${channel.peer} has no export ${JSON.stringify(exportName)}: ${error.text}`,
      });
    case optionReplies.tlsRequired:
      return tlsRequired(channel);
    case optionReplies.policy:
      return new Failure("auth.denied", { message: `${where} was refused: ${error.text}` });
    case optionReplies.unsupported:
      return new Failure("unsupported", {
        message: `${channel.peer} is too old: it does not know NBD_OPT_GO`,
      });
    case optionReplies.shutdown:
      return new Failure("network.unreachable", {
        message: `${channel.peer} is shutting down: ${error.text}`,
      });
    default:
      return new Failure("protocol.invalid", { message: `${where} was refused: ${error.text}` });
  }
}

function tlsRequired(channel: ByteChannel): Failure {
  return new Failure("auth.denied", {
    message: `${channel.peer} requires TLS; give its address with TLS settings`,
  });
}

function invalid(channel: ByteChannel, what: string): Failure {
  return new Failure("protocol.invalid", {
    message: `${channel.peer} broke the protocol: ${what}`,
  });
}
