import net from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { NbdAddress } from "@holdfast/shared/ports/transport";
import { startDeadline } from "../deadline.ts";
import {
  type ByteChannel,
  connectDirectChannel,
  connectSocket,
  createStreamChannel,
} from "./byte-channel.ts";
import { type ByteQueue, createByteQueue } from "./byte-queue.ts";
import { greet, type HandshakeRequest, negotiate, requestTls } from "./handshake.ts";
import { createTransmission, type Transmission } from "./transmission.ts";

export type OpenOptions = HandshakeRequest & {
  readonly address: NbdAddress;
  /** While it lives, the connection obeys it: an abort ends everything at once. */
  readonly signal: AbortSignal | undefined;
  /** For connecting with the handshake, and for each reply. */
  readonly timeoutMs: number;
};

/**
 * Connects and negotiates. Fails with `network.unreachable`, `network.timeout`, `auth.denied` (TLS, policy), `not-found` (no such
 * export), `changes.unknown` (a context is missing), `unsupported` (too old), `protocol.invalid`.
 */
export async function openTransmission(options: OpenOptions): Promise<Transmission> {
  const { address, signal, timeoutMs } = options;
  const peer = describeAddress(address);
  const deadline = startDeadline({ timeoutMs, signal, what: `connecting to ${peer}` });
  const opened: ByteChannel[] = [];
  try {
    const channel = await deadline.race(openChannel(address, peer, signal), (late) =>
      late.destroy(),
    );
    opened.push(channel);
    const queue = createByteQueue(peer);
    channel.setReceiver(queue);
    await deadline.race(greet({ channel, queue }));
    const wire = { channel, queue };
    const tlsSettings = address.kind === "tcp" ? address.tls : undefined;
    const secured =
      tlsSettings === undefined || address.kind !== "tcp"
        ? wire
        : await deadline.race(secure(wire, address.host, tlsSettings), (late) =>
            late.channel.destroy(),
          );
    opened.push(secured.channel);
    const offer = await deadline.race(negotiate(secured, options)).catch((error) => {
      throw explainTls(error, peer, tlsSettings);
    });
    if (secured.queue.leftoverBytes > 0) {
      const message = `${peer} broke the protocol: it sent bytes that nobody asked for`;
      throw new Failure("protocol.invalid", { message });
    }
    return obeySignal(
      createTransmission({ channel: secured.channel, export: offer, timeoutMs }),
      signal,
    );
  } catch (error) {
    for (const channel of opened) channel.destroy();
    throw error;
  } finally {
    deadline.close();
  }
}

export function describeAddress(address: NbdAddress): string {
  const via = address.via === undefined ? "" : ` through ${address.via.name}`;
  if (address.kind === "unix") return `NBD server at ${address.path}${via}`;
  return `NBD server at ${address.host}:${address.port}${via}`;
}

async function openChannel(
  address: NbdAddress,
  peer: string,
  signal: AbortSignal | undefined,
): Promise<ByteChannel> {
  // This machine's own sockets are opened here, because only then can they receive without copying.
  const via = address.via?.name === "local" ? undefined : address.via;
  const call = signal === undefined ? {} : { signal };
  if (via !== undefined) {
    const stream =
      address.kind === "unix"
        ? await via.openUnixSocket(address.path, call)
        : await via.openTcpSocket({ host: address.host, port: address.port }, call);
    return createStreamChannel(stream, peer);
  }
  const direct =
    address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port };
  if (address.kind === "tcp" && address.tls !== undefined) {
    const { socket, connected } = connectSocket(direct, peer);
    await connected;
    return createStreamChannel(socket, peer);
  }
  const channel = connectDirectChannel(direct, peer);
  await channel.connected;
  return channel;
}

type TlsSettings = NonNullable<Extract<NbdAddress, { kind: "tcp" }>["tls"]>;
type Wire = { readonly channel: ByteChannel; readonly queue: ByteQueue };

async function secure(wire: Wire, host: string, settings: TlsSettings): Promise<Wire> {
  await requestTls(wire);
  const { peer } = wire.channel;
  const socket = await startTls({ raw: wire.channel.release(), host, settings, peer });
  const channel = createStreamChannel(socket, peer);
  const queue = createByteQueue(peer);
  channel.setReceiver(queue);
  return { channel, queue };
}

/** Some servers end the connection without a word when they wanted a certificate. */
function explainTls(error: unknown, peer: string, settings: TlsSettings | undefined): unknown {
  const isSuspect = settings !== undefined && settings.certificate === undefined;
  if (!isSuspect || !isFailure(error, "network.unreachable")) return error;
  return new Failure("network.unreachable", {
    message: `${peer} ended the connection after TLS; it may want a client certificate`,
    cause: error,
  });
}

function startTls(options: {
  readonly raw: Duplex;
  readonly host: string;
  readonly settings: TlsSettings;
  readonly peer: string;
}): Promise<tls.TLSSocket> {
  const { raw, host, settings, peer } = options;
  const name = settings.serverName ?? host;
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      socket: raw,
      host: name,
      // A name for SNI must not be an address; the certificate is checked against `host` in any case.
      ...(net.isIP(name) === 0 ? { servername: name } : {}),
      ...(settings.ca === undefined ? {} : { ca: settings.ca }),
      ...(settings.certificate === undefined ? {} : { cert: settings.certificate }),
      ...(settings.privateKey === undefined ? {} : { key: settings.privateKey }),
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
    });
    const onError = (cause: Error): void => {
      raw.destroy();
      reject(
        new Failure("auth.denied", { message: `TLS with ${peer} failed: ${cause.message}`, cause }),
      );
    };
    const onClose = (): void =>
      reject(
        new Failure("network.unreachable", { message: `${peer} closed the connection during TLS` }),
      );
    socket.once("error", onError);
    socket.once("close", onClose);
    socket.once("secureConnect", () => {
      socket.off("error", onError);
      socket.off("close", onClose);
      resolve(socket);
    });
  });
}

function obeySignal(transmission: Transmission, signal: AbortSignal | undefined): Transmission {
  if (signal === undefined) return transmission;
  const onAbort = (): void => {
    const { reason } = signal;
    transmission.fail(reason instanceof Error ? reason : new Error(String(reason)));
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return {
    ...transmission,
    get failure() {
      return transmission.failure;
    },
    async close() {
      signal.removeEventListener("abort", onAbort);
      await transmission.close();
    },
  };
}
