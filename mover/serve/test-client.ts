import net from "node:net";
import { createInbound, type Inbound } from "./inbound.ts";
import type { ListenAddress } from "./nbd-server.ts";

/** For tests: a client that says what it is told to, right or wrong. */
export type RawClient = AsyncDisposable & {
  readonly socket: net.Socket;
  readonly inbound: Inbound;
  /** Everything until the server closes. */
  readonly closed: Promise<void>;
  option(option: number, data?: Uint8Array, head?: { magic?: bigint; length?: number }): void;
  /** One reply to an option. */
  reply(): Promise<{ readonly type: number; readonly data: Buffer }>;
  request(request: {
    readonly command: number;
    readonly offset?: bigint;
    readonly length?: number;
    readonly flags?: number;
    readonly magic?: number;
  }): void;
};

export async function connectRaw(address: ListenAddress, flags = 3): Promise<RawClient> {
  const socket = net.connect(
    address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port },
  );
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const inbound = createInbound(socket);
  await inbound.read(18);
  const hello = Buffer.alloc(4);
  hello.writeUInt32BE(flags);
  socket.write(hello);
  let cookie = 0n;
  return {
    socket,
    inbound,
    closed,
    option(option, data = new Uint8Array(0), head = {}) {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64BE(head.magic ?? 0x49484156454f5054n, 0);
      bytes.writeUInt32BE(option, 8);
      bytes.writeUInt32BE(head.length ?? data.length, 12);
      socket.write(Buffer.concat([bytes, data]));
    },
    async reply() {
      const head = await inbound.read(20);
      return { type: head.readUInt32BE(12), data: await inbound.read(head.readUInt32BE(16)) };
    },
    request({ command, offset = 0n, length = 0, flags: commandFlags = 0, magic = 0x25609513 }) {
      const bytes = Buffer.alloc(28);
      bytes.writeUInt32BE(magic, 0);
      bytes.writeUInt16BE(commandFlags, 4);
      bytes.writeUInt16BE(command, 6);
      cookie += 1n;
      bytes.writeBigUInt64BE(cookie, 8);
      bytes.writeBigUInt64BE(offset, 16);
      bytes.writeUInt32BE(length, 24);
      socket.write(bytes);
    },
    async [Symbol.asyncDispose]() {
      socket.destroy();
      await closed;
    },
  };
}

/** `NBD_OPT_GO` and its like: a name and no requests for information. */
export function nameOption(name: string): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(Buffer.byteLength(name));
  return Buffer.concat([head, Buffer.from(name), Buffer.alloc(2)]);
}
