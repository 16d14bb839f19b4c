import net from "node:net";
import type { NbdReadOptions } from "@holdfast/shared/ports/transport";
import { openNbdReader } from "./nbd-reader.ts";
import { encodeString, handshakeFlags, magic, optionReplies, optionTypes } from "./wire.ts";

/** For tests: an NBD server in this process that can be told to do everything wrong. Listens on a free TCP port. */
export type ScriptedRequest = {
  readonly command: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
  readonly data: Buffer;
};

export type Script = {
  readonly sizeBytes?: number;
  /** Sent instead of the right hello; empty: silence. */
  readonly hello?: Buffer;
  readonly hasStructuredReplies?: boolean;
  readonly contexts?: Readonly<Record<string, number>>;
  /** Transmission flags; default: flags, flush, zeroes. */
  readonly flags?: number;
  readonly blockSizes?: { readonly min: number; readonly max: number };
  /** Answers an option in another way; undefined: the normal one. */
  readonly onOption?: (option: number, data: Buffer, socket: net.Socket) => boolean;
  readonly onRequest?: (request: ScriptedRequest, socket: net.Socket) => void;
};

export type ScriptedServer = AsyncDisposable & {
  readonly address: { readonly kind: "tcp"; readonly host: string; readonly port: number };
  readonly sockets: ReadonlySet<net.Socket>;
  readonly requests: readonly ScriptedRequest[];
};

export async function startScriptedServer(script: Script): Promise<ScriptedServer> {
  const sockets = new Set<net.Socket>();
  const requests: ScriptedRequest[] = [];
  const listener = net.createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    void serve(script, socket, requests).catch(() => socket.destroy());
  });
  listener.listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  const bound = listener.address();
  if (bound === null || typeof bound === "string") throw new Error("no port");
  return {
    address: { kind: "tcp", host: "127.0.0.1", port: bound.port },
    sockets,
    requests,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

/** A reader on a scripted server; disposing closes both. */
export async function openScripted(
  script: Script,
  timeoutMs = 5000,
  extents: NbdReadOptions["extents"] = { by: "allocation" },
) {
  const server = await startScriptedServer(script);
  const reader = await openNbdReader(server.address, { exportName: "x", extents, timeoutMs }).catch(
    async (reason) => {
      await server[Symbol.asyncDispose]();
      throw reason;
    },
  );
  return {
    reader,
    server,
    async [Symbol.asyncDispose]() {
      await reader[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function serve(script: Script, socket: net.Socket, requests: ScriptedRequest[]) {
  const read = reader(socket);
  socket.write(script.hello ?? hello());
  await read(4);
  for (;;) {
    const head = await read(16);
    const option = head.readUInt32BE(8);
    const data = await read(head.readUInt32BE(12));
    if (script.onOption?.(option, data, socket) === true) continue;
    answerOption(script, socket, option);
    if (option === optionTypes.go) break;
  }
  for (;;) {
    const head = await read(28);
    const command = head.readUInt16BE(6);
    const length = head.readUInt32BE(24);
    const request = {
      command,
      cookie: head.readBigUInt64BE(8),
      offset: Number(head.readBigUInt64BE(16)),
      length,
      data: command === 1 ? await read(length) : Buffer.alloc(0),
    };
    requests.push(request);
    script.onRequest?.(request, socket);
  }
}

function answerOption(script: Script, socket: net.Socket, option: number): void {
  if (option === optionTypes.structuredReply && script.hasStructuredReplies === false) {
    socket.write(optionReply(option, optionReplies.unsupported, Buffer.from("no")));
  } else if (option === optionTypes.setMetaContext) {
    for (const [name, id] of Object.entries(script.contexts ?? { "base:allocation": 1 })) {
      const body = Buffer.concat([u32(id), Buffer.from(name)]);
      socket.write(optionReply(option, optionReplies.metaContext, body));
    }
    socket.write(optionReply(option, optionReplies.ack));
  } else if (option === optionTypes.go) {
    const exported = Buffer.alloc(12);
    exported.writeBigUInt64BE(BigInt(script.sizeBytes ?? 1024 * 1024), 2);
    exported.writeUInt16BE(script.flags ?? 0b1000101, 10);
    if (script.blockSizes !== undefined) {
      const { min, max } = script.blockSizes;
      const sizes = Buffer.concat([Buffer.from([0, 3]), u32(min), u32(4096), u32(max)]);
      socket.write(optionReply(option, optionReplies.info, sizes));
    }
    socket.write(optionReply(option, optionReplies.info, exported));
    socket.write(optionReply(option, optionReplies.ack));
  } else socket.write(optionReply(option, optionReplies.ack));
}

/** Exactly so many bytes, one call at a time; never settles when the peer goes. */
function reader(socket: net.Socket): (lengthBytes: number) => Promise<Buffer> {
  let held = Buffer.alloc(0);
  let wake: (() => void) | undefined;
  socket.on("data", (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    wake?.();
  });
  return async (lengthBytes) => {
    while (held.length < lengthBytes) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const bytes = held.subarray(0, lengthBytes);
    held = held.subarray(lengthBytes);
    return bytes;
  };
}

export function hello(
  flags: number = handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes,
): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(magic.hello, 0);
  bytes.writeBigUInt64BE(magic.option, 8);
  bytes.writeUInt16BE(flags, 16);
  return bytes;
}

export function optionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(magic.optionReply, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

export function simpleReply(
  cookie: bigint,
  errorNumber = 0,
  data: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32BE(magic.simpleReply, 0);
  head.writeUInt32BE(errorNumber, 4);
  head.writeBigUInt64BE(cookie, 8);
  return Buffer.concat([head, data]);
}

export function chunk(options: {
  readonly cookie: bigint;
  readonly type: number;
  readonly isLast?: boolean;
  readonly payload?: Buffer;
  /** Announced instead of the payload's own. */
  readonly length?: number;
}): Buffer {
  const payload = options.payload ?? Buffer.alloc(0);
  const head = Buffer.alloc(20);
  head.writeUInt32BE(magic.structuredReply, 0);
  head.writeUInt16BE(options.isLast === false ? 0 : 1, 4);
  head.writeUInt16BE(options.type, 6);
  head.writeBigUInt64BE(options.cookie, 8);
  head.writeUInt32BE(options.length ?? payload.length, 16);
  return Buffer.concat([head, payload]);
}

export const dataPayload = (offset: number, data: Buffer): Buffer =>
  Buffer.concat([u64(offset), data]);
export const holePayload = (offset: number, length: number): Buffer =>
  Buffer.concat([u64(offset), u32(length)]);
export const errorPayload = (errorNumber: number, text: string): Buffer =>
  Buffer.concat([u32(errorNumber), encodeString(text).subarray(2)]);
export const statusPayload = (id: number, runs: readonly (readonly [number, number])[]): Buffer =>
  Buffer.concat([u32(id), ...runs.flatMap(([length, flags]) => [u32(length), u32(flags)])]);

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
