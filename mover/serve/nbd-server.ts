import { strict as assert } from "node:assert";
import { stat, unlink } from "node:fs/promises";
import net from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import { answerRequests, type OnReadFailed, type Served } from "./answer-requests.ts";
import { createInbound } from "./inbound.ts";
import type { NbdDisk } from "./nbd-export.ts";
import { negotiate, type Wire } from "./negotiate.ts";

/**
 * Offers disks to NBD clients, read-only. What always holds: a Unix socket is this user's alone; TCP beyond this machine needs TLS with
 * client certificates; memory is bounded whatever clients send, or leave unread.
 */
export type NbdServer = AsyncDisposable & {
  readonly address: ListenAddress;
  readonly served: Readonly<Served>;
};

export type ListenAddress =
  | { readonly kind: "unix"; readonly path: string }
  /** Port 0: any free one. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** PEM texts. Clients need a certificate that `ca` signed. */
export type ServerTls = {
  readonly ca: string;
  readonly certificate: string;
  readonly privateKey: string;
};

export type NbdServerOptions = {
  readonly disks: readonly NbdDisk[];
  readonly listen: ListenAddress;
  readonly tls?: ServerTls | undefined;
  readonly logger: Logger;
  readonly onReadFailed: (diskName: string, read: Parameters<OnReadFailed>[0]) => void;
  /** For the handshake; then for a reply that the client doesn't take. Milliseconds. */
  readonly handshakeMs?: number;
  readonly stalledMs?: number;
};

/** Each may hold 32 MiB of replies. */
const connectionsMax = 16;
const handshakeMsDefault = 15_000;
const stalledMsDefault = 120_000;
/** `sun_path` of Linux, with its end. */
const socketPathBytesMax = 107;

/** Fails with `input.invalid` for an address that is refused, `conflict` when it is taken. */
export async function startNbdServer(o: NbdServerOptions): Promise<NbdServer> {
  checkAddress(o.listen, o.tls);
  const served: Served = { requests: 0, bytes: 0 };
  const tlsSettings = o.tls;
  if (tlsSettings !== undefined) checkTls(tlsSettings);
  const streams = new Set<net.Socket>();
  const startTls =
    tlsSettings === undefined
      ? undefined
      : async (wire: Wire): Promise<Wire> => {
          const secured = await acceptTls(wire, tlsSettings);
          watch(secured);
          return { stream: secured, inbound: createInbound(secured) };
        };

  function watch(socket: net.Socket): void {
    streams.add(socket);
    socket.once("close", () => streams.delete(socket));
    socket.on("error", () => undefined);
    socket.setTimeout(o.stalledMs ?? stalledMsDefault, () => {
      // Nobody has to ask for anything, but who asked has to take the answer.
      if (socket.writableLength > 0) socket.destroy();
    });
  }

  async function serve(socket: net.Socket): Promise<void> {
    const wire = { stream: socket, inbound: createInbound(socket) };
    let last: Duplex = socket;
    const late = setTimeout(() => socket.destroy(), o.handshakeMs ?? handshakeMsDefault);
    try {
      const agreement = await negotiate(wire, { disks: o.disks, startTls });
      if (agreement === undefined) return;
      last = agreement.wire.stream;
      clearTimeout(late);
      const { name } = agreement.disk;
      o.logger.info("client connected", { disk: name });
      await answerRequests(agreement, {
        served,
        onReadFailed: (read) => o.onReadFailed(name, read),
      });
    } finally {
      clearTimeout(late);
      // What is queued is sent first; who doesn't take it is cut off by the stall's limit.
      last.end(() => last.destroy());
    }
  }

  const server = net.createServer({ noDelay: true }, (socket) => {
    watch(socket);
    serve(socket).catch((error: unknown) => {
      o.logger.warn("client left", { reason: asFailure(error, "internal", "connection").message });
    });
  });
  server.maxConnections = connectionsMax;
  const address = await listen(server, o.listen);
  return {
    address,
    served,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const stream of streams) stream.destroy();
      await closed;
    },
  };
}

function checkAddress(listen: ListenAddress, tlsSettings: ServerTls | undefined): void {
  const refuse = (message: string): never => {
    throw new Failure("input.invalid", { message });
  };
  if (listen.kind === "unix") {
    if (tlsSettings !== undefined) refuse("a Unix socket needs no TLS: only its owner can open it");
    if (Buffer.byteLength(listen.path) > socketPathBytesMax) {
      refuse(`the socket's path ${listen.path} is longer than ${socketPathBytesMax} bytes`);
    }
    return;
  }
  if (net.isIP(listen.host) === 0) refuse(`${listen.host} is no IP address to listen at`);
  if (tlsSettings === undefined && !isLoopback(listen.host)) {
    refuse(
      `${listen.host} can be reached from other machines, and NBD alone knows no passwords: give --tls, or listen at 127.0.0.1`,
    );
  }
}

function isLoopback(host: string): boolean {
  const loopback = new net.BlockList();
  loopback.addSubnet("127.0.0.0", 8, "ipv4");
  loopback.addAddress("::1", "ipv6");
  return loopback.check(host, net.isIPv6(host) ? "ipv6" : "ipv4");
}

async function listen(server: net.Server, wanted: ListenAddress): Promise<ListenAddress> {
  const place = wanted.kind === "unix" ? wanted.path : `${wanted.host}:${wanted.port}`;
  const listening = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve);
    server.once("error", reject);
  });
  // The socket is made while this call runs, and is nobody else's for no moment.
  const before = process.umask(0o177);
  try {
    if (wanted.kind === "unix") server.listen({ path: wanted.path });
    else server.listen({ host: wanted.host, port: wanted.port });
  } finally {
    process.umask(before);
  }
  try {
    await listening;
  } catch (cause) {
    const isTaken = cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
    throw new Failure(isTaken ? "conflict" : "input.invalid", {
      message: isTaken
        ? `${place} is in use; if no server runs there any more, remove it`
        : `cannot listen at ${place}: ${String(cause)}`,
      cause,
    });
  }
  const bound = server.address();
  if (wanted.kind === "unix") {
    const { mode } = await stat(wanted.path);
    if ((mode & 0o077) !== 0) {
      server.close();
      await unlink(wanted.path);
      throw new Failure("input.invalid", {
        message: `the socket at ${wanted.path} would be open to others; choose a folder on a local file system`,
      });
    }
    return wanted;
  }
  assert(bound !== null && typeof bound === "object");
  return { ...wanted, port: bound.port };
}

function checkTls({ ca, certificate, privateKey }: ServerTls): void {
  try {
    tls.createSecureContext({ ca, cert: certificate, key: privateKey });
  } catch (cause) {
    throw new Failure("input.invalid", {
      message: `the TLS certificates cannot be used: ${String(cause)}`,
      cause,
    });
  }
}

function acceptTls(wire: Wire, settings: ServerTls): Promise<tls.TLSSocket> {
  const early = wire.inbound.release();
  if (early.length > 0) {
    throw new Failure("protocol.invalid", {
      message: "the client broke the protocol: it sent plain bytes where TLS should begin",
    });
  }
  // A server of its own for each connection: only a server checks the client's certificate.
  const server = tls.createServer({
    ca: settings.ca,
    cert: settings.certificate,
    key: settings.privateKey,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
  });
  return new Promise((resolve, reject) => {
    const fail = (cause?: Error): void =>
      reject(
        new Failure("auth.denied", { message: `TLS failed: ${cause?.message ?? "closed"}`, cause }),
      );
    server.once("tlsClientError", (cause) => {
      wire.stream.destroy();
      fail(cause);
    });
    server.once("secureConnection", resolve);
    wire.stream.once("close", () => fail());
    server.emit("connection", wire.stream);
  });
}
