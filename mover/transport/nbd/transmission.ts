import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { ByteChannel } from "./byte-channel.ts";
import { connectionLost } from "./connection-lost.ts";
import { type Coverage, createCoverage } from "./coverage.ts";
import type { NbdExport } from "./handshake.ts";
import {
  chunkFlags,
  chunkTypes,
  commands,
  describeError,
  encodeRequest,
  magic,
  readSafeInteger,
} from "./wire.ts";

/**
 * The transmission phase of one connection: many requests in flight, replies in any order.
 *
 * What always holds: a read resolves only when every one of its bytes was answered exactly once; an error reply never
 * becomes zeros; a reply that breaks the protocol, comes late or belongs to no request ends the connection, and then
 * every request fails with that cause. Nothing is allocated for a length before the length was checked.
 */
export type Transmission = {
  readonly export: NbdExport;
  /** Why the connection is over; undefined while it works. */
  readonly failure: Error | undefined;
  /** `into` must be within the server's limits; it is written to until the promise settles. */
  read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  write(offset: number, data: Uint8Array): Promise<void>;
  writeZeroes(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  /** One answer per context id; each covers at least one byte from `offset`. */
  blockStatus(offset: number, length: number): Promise<ReadonlyMap<number, readonly StatusRun[]>>;
  /** Ends the connection with this reason; later and pending requests fail with it. */
  fail(reason: Error): void;
  /** Says goodbye and closes. Pending requests fail. */
  close(): Promise<void>;
};

/** A run of bytes with one context's flags, consecutive from the request's offset. */
export type StatusRun = { readonly length: number; readonly flags: number };

export type TransmissionOptions = {
  readonly channel: ByteChannel;
  readonly export: NbdExport;
  /** Limit for one reply, in milliseconds. */
  readonly timeoutMs: number;
};

type Pending = {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  readonly deadline: number;
  readonly coverage: Coverage | undefined;
  readonly status: Map<number, readonly StatusRun[]> | undefined;
  /** Undefined once the caller has given up: what still arrives is dropped. */
  into: Uint8Array | undefined;
  error: Failure | undefined;
  resolve(): void;
  reject(error: unknown): void;
};

/** nbdkit sends at most 2^20 extents of 8 bytes, QEMU 2^17. */
const statusBytesMax = 4 + 8 * 1024 * 1024;
const errorBytesMax = 8 * 1024;
const discardBytes = 64 * 1024;

export function createTransmission(options: TransmissionOptions): Transmission {
  const { channel, timeoutMs } = options;
  const pendings = new Map<number, Pending>();
  const head = Buffer.allocUnsafe(20);
  const chunkHead = Buffer.allocUnsafe(12);
  const discard = Buffer.allocUnsafe(discardBytes);
  let failure: Error | undefined;
  let cookieLast = 0;
  let timer: NodeJS.Timeout | undefined;
  /** The reply in progress, while its payload goes to memory that may be the caller's. */
  let receivingCookie = 0;
  let abandonLater: (() => void) | undefined;

  // The parser: it wants exactly `want`, and calls `next` when that is full.
  let want: Uint8Array = head.subarray(0, 16);
  let filled = 0;
  let next: () => void = onHead;

  function expect(buffer: Uint8Array, then: () => void): void {
    want = buffer;
    filled = 0;
    next = then;
  }

  function expectHead(): void {
    receivingCookie = 0;
    if (abandonLater !== undefined) {
      abandonLater();
      abandonLater = undefined;
    }
    expect(head.subarray(0, 16), onHead);
  }

  function onHead(): void {
    const kind = head.readUInt32BE(0);
    if (kind === magic.simpleReply) onSimpleReply();
    else if (kind === magic.structuredReply) expect(head.subarray(16, 20), onStructuredHead);
    else throw violated(`a reply starts with 0x${kind.toString(16)}`);
  }

  function onSimpleReply(): void {
    const cookie = readSafeInteger(head, 8);
    const pending = pendings.get(cookie);
    if (pending === undefined) throw violated("a reply belongs to no request");
    const errorNumber = head.readUInt32BE(4);
    const isRead = pending.command === commands.read;
    if ((isRead && options.export.hasStructuredReplies) || pending.status !== undefined) {
      throw violated("a simple reply where only a structured one is allowed");
    }
    if (errorNumber !== 0) pending.error = requestFailure(pending, errorNumber, "");
    if (!isRead || errorNumber !== 0) {
      finish(cookie, pending);
      expectHead();
      return;
    }
    receivePayload({ cookie, pending, start: 0, length: pending.length, isLast: true });
  }

  function onStructuredHead(): void {
    const flags = head.readUInt16BE(4);
    const type = head.readUInt16BE(6);
    const cookie = readSafeInteger(head, 8);
    const length = head.readUInt32BE(16);
    const isLast = (flags & chunkFlags.done) !== 0;
    const pending = pendings.get(cookie);
    if (!options.export.hasStructuredReplies) throw violated("an unasked structured reply");
    if (pending === undefined) throw violated("a reply belongs to no request");
    const chunk = { cookie, pending, length, isLast };
    if (type === chunkTypes.none) {
      if (length !== 0 || !isLast) throw violated("an empty chunk with content or without end");
      finish(cookie, pending);
      expectHead();
    } else if (type === chunkTypes.offsetData && pending.command === commands.read) {
      if (length <= 8 || length > 8 + pending.length) throw violated("a data chunk of wrong size");
      expect(chunkHead.subarray(0, 8), () => {
        const start = readSafeInteger(chunkHead, 0) - pending.offset;
        receivePayload({ ...chunk, start, length: length - 8 });
      });
    } else if (type === chunkTypes.offsetHole && pending.command === commands.read) {
      if (length !== 12) throw violated("a hole chunk of wrong size");
      expect(chunkHead, () => onHole(chunk));
    } else if (type === chunkTypes.blockStatus && pending.status !== undefined) {
      if (length < 12 || length > statusBytesMax || (length - 4) % 8 !== 0) {
        throw violated("a block status of wrong size");
      }
      const body = Buffer.allocUnsafe(length);
      expect(body, () => onBlockStatus(chunk, body));
    } else if (type === chunkTypes.error || type === chunkTypes.errorOffset) {
      if (length < 6 || length > errorBytesMax) throw violated("an error chunk of wrong size");
      const body = Buffer.allocUnsafe(length);
      expect(body, () => onError(chunk, body));
    } else throw violated(`an unexpected chunk of type ${type}`);
  }

  type Chunk = {
    readonly cookie: number;
    readonly pending: Pending;
    readonly length: number;
    readonly isLast: boolean;
  };

  function receivePayload(chunk: Chunk & { readonly start: number }): void {
    const { cookie, pending, start, length, isLast } = chunk;
    if (pending.coverage?.add(start, start + length) !== true) {
      throw violated("data outside of what was asked, or twice");
    }
    receivingCookie = cookie;
    const done = (): void => {
      // Who gave up meanwhile hears that, not that it went well.
      expectHead();
      if (isLast) finish(cookie, pending);
    };
    if (pending.into !== undefined) expect(pending.into.subarray(start, start + length), done);
    else dropPayload(length, done);
  }

  function dropPayload(length: number, done: () => void): void {
    const part = Math.min(length, discard.length);
    expect(discard.subarray(0, part), () => {
      if (length > part) dropPayload(length - part, done);
      else done();
    });
  }

  function onHole({ cookie, pending, isLast }: Chunk): void {
    const start = readSafeInteger(chunkHead, 0) - pending.offset;
    const end = start + chunkHead.readUInt32BE(8);
    if (pending.coverage?.add(start, end) !== true) {
      throw violated("a hole outside of what was asked, or twice");
    }
    pending.into?.fill(0, start, end);
    if (isLast) finish(cookie, pending);
    expectHead();
  }

  function onBlockStatus({ cookie, pending, isLast }: Chunk, body: Buffer): void {
    const id = body.readUInt32BE(0);
    if (pending.status === undefined || pending.status.has(id)) {
      throw violated("two block status chunks for one context");
    }
    const runs: StatusRun[] = [];
    for (let at = 4; at < body.length; at += 8) {
      const run = { length: body.readUInt32BE(at), flags: body.readUInt32BE(at + 4) };
      if (run.length === 0) throw violated("a block status of length 0");
      runs.push(run);
    }
    pending.status.set(id, runs);
    if (isLast) finish(cookie, pending);
    expectHead();
  }

  function onError({ cookie, pending, isLast }: Chunk, body: Buffer): void {
    const errorNumber = body.readUInt32BE(0);
    const textLength = body.readUInt16BE(4);
    if (errorNumber === 0 || textLength > body.length - 6)
      throw violated("a malformed error chunk");
    const text = body.toString("utf8", 6, 6 + textLength).slice(0, 500);
    pending.error ??= requestFailure(pending, errorNumber, text);
    if (isLast) finish(cookie, pending);
    expectHead();
  }

  /** The final reply to a request is here: all of it must be. */
  function finish(cookie: number, pending: Pending): void {
    pendings.delete(cookie);
    if (pendings.size === 0) stopTimer();
    if (pending.error !== undefined) pending.reject(pending.error);
    else if (pending.coverage?.isComplete() === false) {
      const message = `${channel.peer} answered only a part of a read of ${pending.length} bytes at ${pending.offset}`;
      pending.reject(new Failure("disk.read-failed", { message }));
    } else pending.resolve();
  }

  function requestFailure(pending: Pending, errorNumber: number, text: string): Failure {
    const isWrite = pending.command !== commands.read && pending.command !== commands.blockStatus;
    const what = commandNames[pending.command] ?? "request";
    const range =
      pending.command === commands.flush ? "" : ` of ${pending.length} bytes at ${pending.offset}`;
    const reason = text === "" ? "" : ` (${text})`;
    return new Failure(isWrite ? "disk.write-failed" : "disk.read-failed", {
      message: `${channel.peer}: ${what}${range} failed: ${describeError(errorNumber)}${reason}`,
      errorNumber,
    });
  }

  function violated(what: string): Failure {
    return new Failure("protocol.invalid", {
      message: `${channel.peer} broke the protocol: ${what}`,
    });
  }

  function fail(reason: Error): void {
    if (failure !== undefined) return;
    failure = reason;
    stopTimer();
    // First the socket lets go of the callers' memory, then the callers hear of it.
    channel.destroy();
    want = new Uint8Array(0);
    abandonLater?.();
    for (const pending of pendings.values()) pending.reject(reason);
    pendings.clear();
  }

  function stopTimer(): void {
    clearTimeout(timer);
    timer = undefined;
  }

  /** Requests are sent in order, so the oldest one's deadline comes first. */
  function watchDeadline(): void {
    const oldest = pendings.values().next().value;
    timer = undefined;
    if (oldest === undefined) return;
    const leftMs = oldest.deadline - performance.now();
    if (leftMs > 0) {
      timer = setTimeout(watchDeadline, Math.ceil(leftMs));
      return;
    }
    const what = commandNames[oldest.command] ?? "request";
    fail(
      new Failure("network.timeout", {
        message: `${channel.peer} did not answer a ${what} of ${oldest.length} bytes at ${oldest.offset} within ${timeoutMs} ms`,
      }),
    );
  }

  type Call = {
    readonly command: number;
    readonly offset: number;
    readonly length: number;
    readonly into?: Uint8Array;
    readonly data?: Uint8Array;
    readonly status?: Map<number, readonly StatusRun[]>;
    readonly signal?: AbortSignal | undefined;
  };

  function call({ command, offset, length, into, data, status, signal }: Call): Promise<void> {
    return new Promise((resolve, reject) => {
      if (failure !== undefined) {
        reject(failure);
        return;
      }
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      cookieLast += 1;
      const cookie = cookieLast;
      const stopListening = (): void => signal?.removeEventListener("abort", onAbort);
      const pending: Pending = {
        command,
        offset,
        length,
        deadline: performance.now() + timeoutMs,
        coverage: command === commands.read ? createCoverage(length) : undefined,
        status,
        into,
        error: undefined,
        resolve() {
          stopListening();
          resolve();
        },
        reject(error) {
          stopListening();
          reject(error);
        },
      };
      function onAbort(): void {
        const giveUp = (): void => {
          pending.into = undefined;
          pending.reject(signal?.reason);
        };
        // The kernel may be about to write into the caller's memory: it is his again only after that chunk.
        if (receivingCookie === cookie) abandonLater = giveUp;
        else giveUp();
      }
      signal?.addEventListener("abort", onAbort, { once: true });
      pendings.set(cookie, pending);
      if (timer === undefined) watchDeadline();
      const request = encodeRequest({ command, cookie, offset, length });
      if (data === undefined) channel.send(request);
      else channel.send(request, data);
    });
  }

  channel.setReceiver({
    isSteady: true,
    target: () => (filled === 0 ? want : want.subarray(filled)),
    received(lengthBytes) {
      filled += lengthBytes;
      if (filled < want.length) return;
      try {
        next();
      } catch (error) {
        fail(asFailure(error, "internal", "reading an NBD reply"));
      }
    },
    ended(cause) {
      fail(connectionLost(channel.peer, cause));
    },
  });

  return {
    export: options.export,
    get failure() {
      return failure;
    },
    read: (offset, into, signal) =>
      call({ command: commands.read, offset, length: into.length, into, signal }),
    write: (offset, data) => call({ command: commands.write, offset, length: data.length, data }),
    writeZeroes: (offset, length) => call({ command: commands.writeZeroes, offset, length }),
    flush: () => call({ command: commands.flush, offset: 0, length: 0 }),
    async blockStatus(offset, length) {
      const status = new Map<number, readonly StatusRun[]>();
      await call({ command: commands.blockStatus, offset, length, status });
      return status;
    },
    fail,
    async close() {
      if (failure !== undefined) return;
      channel.send(
        encodeRequest({ command: commands.disconnect, cookie: 0, offset: 0, length: 0 }),
      );
      failure = new Failure("cancelled", {
        message: `the connection to ${channel.peer} was closed`,
      });
      stopTimer();
      await channel.end();
      for (const pending of pendings.values()) pending.reject(failure);
      pendings.clear();
    },
  };
}

const commandNames: Readonly<Record<number, string>> = {
  [commands.read]: "read",
  [commands.write]: "write",
  [commands.flush]: "flush",
  [commands.writeZeroes]: "write of zeros",
  [commands.blockStatus]: "block status request",
};
