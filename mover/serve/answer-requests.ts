import { Failure, toFailureRecord } from "@holdfast/shared/domain/failure";
import { freeBytes } from "@holdfast/shared/repository/format/bytes";
import type { DiskRun } from "../pipeline/point-reader.ts";
import {
  chunkFlags,
  chunkTypes,
  commandFlags,
  commands,
  errorNumbers,
  magic,
  readSafeInteger,
  requestBytes,
  writeSafeInteger,
} from "../transport/nbd/wire.ts";
import { allocationContextId, readBytesMax } from "./nbd-export.ts";
import type { Agreement } from "./negotiate.ts";

/** Told of each read that failed; the client hears an input/output error only. */
export type OnReadFailed = (read: {
  readonly offset: number;
  readonly length: number;
  readonly failure: Failure;
}) => void;

export type Served = { requests: number; bytes: number };

/** Of one connection: as many requests are worked on at once, and as many bytes are held for replies (or one request of any size). */
const requestsMax = 64;
const replyBytesMax = 32 * 1024 * 1024;
/** A write that nobody asked for is read over up to this length. */
const writeBytesSkippedMax = 64 * 1024 * 1024;
const statusRunsMax = 4096;

type Request = {
  readonly flags: number;
  readonly command: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
};

/**
 * The transmission's part of one connection: answers until the client says goodbye or goes. Requests are worked on many at once
 * and answered in any order. A client that doesn't take its replies gets no more of them: memory is bounded.
 * Fails with `protocol.invalid` for what is no request.
 */
export async function answerRequests(
  agreement: Agreement,
  o: { readonly onReadFailed: OnReadFailed; readonly served: Served },
): Promise<void> {
  const { wire } = agreement;
  const { stream } = wire;
  let working = 0;
  let heldBytes = 0;
  let wake: (() => void) | undefined;

  async function room(bytes: number): Promise<void> {
    while (
      working > 0 &&
      (working >= requestsMax || heldBytes + bytes > replyBytesMax) &&
      !stream.destroyed
    ) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  /** Resolves when the kernel took it all, or the connection is gone. */
  function send(parts: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve) => {
      if (stream.destroyed) {
        resolve();
        return;
      }
      stream.cork();
      for (const part of parts.slice(0, -1)) stream.write(part);
      stream.write(parts.at(-1) ?? Buffer.alloc(0), () => resolve());
      stream.uncork();
    });
  }

  async function answer(request: Request): Promise<void> {
    const reply = await replyTo(agreement, request, o.onReadFailed);
    o.served.requests += 1;
    o.served.bytes += reply.bytes;
    await send(reply.parts);
    for (const memory of reply.memory) freeBytes(memory);
  }

  for (;;) {
    const request = await readRequest(wire.inbound.read);
    if (request.command === commands.disconnect) break;
    if (request.command === commands.write) {
      if (request.length > writeBytesSkippedMax) {
        throw invalid(`a write of ${request.length} bytes`);
      }
      await wire.inbound.skip(request.length);
    }
    const bytes = request.command === commands.read ? Math.min(request.length, readBytesMax) : 0;
    await room(bytes);
    // What came before the end is worked on for nobody.
    if (stream.destroyed) {
      throw new Failure("network.unreachable", { message: "the client left requests unanswered" });
    }
    working += 1;
    heldBytes += bytes;
    const done = (): void => {
      working -= 1;
      heldBytes -= bytes;
      wake?.();
    };
    answer(request).then(done, (error: unknown) => {
      done();
      stream.destroy(error instanceof Error ? error : new Error(String(error)));
    });
  }
  while (working > 0 && !stream.destroyed) {
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}

async function readRequest(read: (lengthBytes: number) => Promise<Buffer>): Promise<Request> {
  const head = await read(requestBytes);
  if (head.readUInt32BE(0) !== magic.request) throw invalid("a request without its magic");
  return {
    flags: head.readUInt16BE(4),
    command: head.readUInt16BE(6),
    cookie: Buffer.from(head.subarray(8, 16)),
    offset: readSafeInteger(head, 16),
    length: head.readUInt32BE(24),
  };
}

type Reply = {
  readonly parts: readonly Uint8Array[];
  /** Bytes of the disk in it. */
  readonly bytes: number;
  /** To be freed when it was sent. */
  readonly memory: readonly Uint8Array[];
};

async function replyTo(
  agreement: Agreement,
  request: Request,
  onReadFailed: OnReadFailed,
): Promise<Reply> {
  const refusal = refuse(agreement, request);
  if (refusal !== undefined) return failed(agreement, request, ...refusal);
  const { offset, length } = request;
  try {
    return request.command === commands.read
      ? await readDisk(agreement, request)
      : await describeBlocks(agreement, request);
  } catch (error) {
    const { code, message } = toFailureRecord(error);
    onReadFailed({ offset, length, failure: new Failure(code, { message, cause: error }) });
    return failed(
      agreement,
      request,
      errorNumbers.io,
      `the recovery point cannot be read: ${code}`,
    );
  }
}

const knownFlags: Readonly<Record<number, number>> = {
  [commands.read]: commandFlags.dontFragment,
  [commands.blockStatus]: commandFlags.requestOne,
};

/** Error number and text for what is not answered otherwise. */
function refuse(
  { disk, hasStructuredReplies, hasBlockStatus }: Agreement,
  { command, flags, offset, length }: Request,
): readonly [number, string] | undefined {
  switch (command) {
    case commands.write:
    case commands.writeZeroes:
    case commands.trim:
      return [errorNumbers.permission, "a recovery point is never written"];
    case commands.read:
    case commands.blockStatus:
      break;
    default:
      return [errorNumbers.invalid, `command ${command} is not offered`];
  }
  if (command === commands.blockStatus && !hasBlockStatus) {
    return [errorNumbers.invalid, "no context was chosen for block status"];
  }
  if ((flags & ~(knownFlags[command] ?? 0)) !== 0 || (flags !== 0 && !hasStructuredReplies)) {
    return [errorNumbers.invalid, `flags ${flags} are not offered`];
  }
  if (length === 0 || !(offset + length <= disk.sizeBytes)) {
    return [errorNumbers.invalid, `${length} bytes at ${offset} are not within the disk`];
  }
  if (command === commands.read && length > readBytesMax) {
    return [errorNumbers.overflow, `reads are of ${readBytesMax} bytes at most`];
  }
  return undefined;
}

async function readDisk(agreement: Agreement, request: Request): Promise<Reply> {
  const { disk, hasStructuredReplies } = agreement;
  const { offset, length, cookie } = request;
  if (!hasStructuredReplies) {
    const data = Buffer.allocUnsafeSlow(length);
    await disk.read(offset, data);
    return { parts: [simpleHead(cookie, 0), data], bytes: length, memory: [data] };
  }
  const isWhole = (request.flags & commandFlags.dontFragment) !== 0;
  const runs = isWhole ? [] : await disk.runs(offset, length);
  const covered = runs.reduce((sum, run) => sum + run.length, 0);
  const pieces: readonly DiskRun[] =
    covered === length ? runs : [{ offset, length, isHole: false }];
  const memory: Buffer[] = [];
  const sent = await Promise.allSettled(
    pieces.map(async (run, position) => {
      const isLast = position === pieces.length - 1;
      if (run.isHole) return [holeChunk(cookie, run, isLast)];
      const data = Buffer.allocUnsafeSlow(run.length);
      memory.push(data);
      await disk.read(run.offset, data);
      return [dataHead(cookie, run, isLast), data];
    }),
  );
  const parts: Uint8Array[] = [];
  for (const piece of sent) {
    if (piece.status === "rejected") throw piece.reason;
    parts.push(...piece.value);
  }
  return { parts, bytes: length, memory };
}

async function describeBlocks({ disk }: Agreement, request: Request): Promise<Reply> {
  const runs = await disk.runs(request.offset, request.length);
  const isOne = (request.flags & commandFlags.requestOne) !== 0;
  const said = runs.slice(0, isOne ? 1 : statusRunsMax);
  const payload = Buffer.alloc(4 + said.length * 8);
  payload.writeUInt32BE(allocationContextId, 0);
  for (const [position, { length, isHole }] of said.entries()) {
    payload.writeUInt32BE(length, 4 + position * 8);
    // Hole and zero, or neither.
    payload.writeUInt32BE(isHole ? 3 : 0, 8 + position * 8);
  }
  const head = chunkHead(request.cookie, chunkTypes.blockStatus, payload.length, true);
  return { parts: [head, payload], bytes: 0, memory: [] };
}

function failed(
  { hasStructuredReplies }: Agreement,
  { cookie }: Request,
  errorNumber: number,
  message: string,
): Reply {
  if (!hasStructuredReplies) {
    return { parts: [simpleHead(cookie, errorNumber)], bytes: 0, memory: [] };
  }
  const text = Buffer.from(message);
  const head = Buffer.alloc(6);
  head.writeUInt32BE(errorNumber, 0);
  head.writeUInt16BE(text.length, 4);
  const parts = [chunkHead(cookie, chunkTypes.error, 6 + text.length, true), head, text];
  return { parts, bytes: 0, memory: [] };
}

function simpleHead(cookie: Buffer, errorNumber: number): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32BE(magic.simpleReply, 0);
  head.writeUInt32BE(errorNumber, 4);
  cookie.copy(head, 8);
  return head;
}

function chunkHead(cookie: Buffer, type: number, length: number, isLast: boolean): Buffer {
  const head = Buffer.alloc(20);
  head.writeUInt32BE(magic.structuredReply, 0);
  head.writeUInt16BE(isLast ? chunkFlags.done : 0, 4);
  head.writeUInt16BE(type, 6);
  cookie.copy(head, 8);
  head.writeUInt32BE(length, 16);
  return head;
}

function dataHead(cookie: Buffer, run: DiskRun, isLast: boolean): Buffer {
  const offset = Buffer.alloc(8);
  writeSafeInteger(offset, run.offset, 0);
  return Buffer.concat([chunkHead(cookie, chunkTypes.offsetData, 8 + run.length, isLast), offset]);
}

function holeChunk(cookie: Buffer, run: DiskRun, isLast: boolean): Buffer {
  const payload = Buffer.alloc(12);
  writeSafeInteger(payload, run.offset, 0);
  payload.writeUInt32BE(run.length, 8);
  return Buffer.concat([chunkHead(cookie, chunkTypes.offsetHole, 12, isLast), payload]);
}

function invalid(what: string): Failure {
  return new Failure("protocol.invalid", { message: `the client broke the protocol: ${what}` });
}
