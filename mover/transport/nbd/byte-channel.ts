import net from "node:net";
import type { Duplex } from "node:stream";
import { Failure } from "@holdfast/shared/domain/failure";

/**
 * A stream of bytes as a protocol parser wants it: the parser says where the next bytes belong, and they are put there.
 * On a socket of this machine long payloads are received by the kernel straight into the caller's memory; on any other
 * Duplex (TLS, SSH) they are copied once.
 */
export type ByteReceiver = {
  /** True if `target` stays the same until bytes were received into it, so that the kernel may write there. */
  readonly isSteady: boolean;
  /** Where the next bytes go; empty when none are expected, which makes any that come a violation. */
  target(): Uint8Array;
  /** So many bytes were put at the start of what `target` gave. */
  received(lengthBytes: number): void;
  /** Nothing more will come. Called at most once, never after `destroy`. */
  ended(cause: Error | undefined): void;
};

export type ByteChannel = {
  /** For messages. */
  readonly peer: string;
  /** Settles when the stream is usable; fails with `network.unreachable` or `network.timeout`. */
  readonly connected: Promise<void>;
  setReceiver(receiver: ByteReceiver): void;
  send(...parts: readonly Uint8Array[]): void;
  /** Stops receiving and gives the stream to another user (TLS). Impossible on a direct socket. */
  release(): Duplex;
  /** Sends what is queued, then closes. */
  end(): Promise<void>;
  destroy(): void;
};

export type DirectAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** From this size on a payload bypasses the scratch buffer. */
const directBytesMin = 32 * 1024;
const scratchBytes = 64 * 1024;
const endTimeoutMs = 2000;

/** A socket that receives into its user's memory: no copy for long payloads. */
export function connectDirectChannel(address: DirectAddress, peer: string): ByteChannel {
  const scratch = Buffer.allocUnsafeSlow(scratchBytes);
  const feed = createFeed();
  const chooseBuffer = (): Uint8Array => {
    const target = feed.steadyTarget();
    return target.length >= directBytesMin ? target : scratch;
  };
  const socket = net.connect({
    ...address,
    noDelay: true,
    keepAlive: true,
    onread: {
      buffer: chooseBuffer,
      callback: (lengthBytes, buffer) => {
        if (buffer === scratch) feed.distribute(scratch.subarray(0, lengthBytes));
        else feed.receivedInPlace(lengthBytes);
        return true;
      },
    },
  });
  return wrapStream({ stream: socket, peer, feed, connected: connectedPromise(socket, peer) });
}

export function connectSocket(address: DirectAddress, peer: string) {
  const socket = net.connect({ ...address, noDelay: true, keepAlive: true });
  return { socket, connected: connectedPromise(socket, peer) };
}

/** Any stream: a TLS socket, an SSH channel. */
export function createStreamChannel(stream: Duplex, peer: string): ByteChannel {
  const feed = createFeed();
  stream.on("data", feed.distribute);
  return wrapStream({ stream, peer, feed, connected: Promise.resolve() });
}

type Feed = ReturnType<typeof createFeed>;

const nothing = new Uint8Array(0);

function createFeed() {
  let receiver: ByteReceiver | undefined;
  let early: Uint8Array[] = [];
  let isOver = false;

  function end(cause: Error | undefined): void {
    if (isOver) return;
    isOver = true;
    receiver?.ended(cause);
  }

  function distribute(chunk: Uint8Array): void {
    if (receiver === undefined) {
      early.push(Uint8Array.prototype.slice.call(chunk));
      return;
    }
    let used = 0;
    while (used < chunk.length && !isOver) {
      const target = receiver.target();
      if (target.length === 0) {
        const message = `the server sent ${chunk.length - used} bytes that nobody asked for`;
        end(new Failure("protocol.invalid", { message }));
        return;
      }
      const length = Math.min(target.length, chunk.length - used);
      target.set(chunk.subarray(used, used + length));
      used += length;
      receiver.received(length);
    }
  }

  return {
    distribute,
    end,
    /** No more calls to the receiver. */
    stop(): void {
      isOver = true;
    },
    /** Where the kernel may put the next bytes itself. */
    steadyTarget: (): Uint8Array =>
      !isOver && receiver?.isSteady === true ? receiver.target() : nothing,
    receivedInPlace(lengthBytes: number): void {
      if (!isOver) receiver?.received(lengthBytes);
    },
    setReceiver(next: ByteReceiver): void {
      receiver = next;
      const chunks = early;
      early = [];
      for (const chunk of chunks) distribute(chunk);
    },
  };
}

function wrapStream(options: {
  readonly stream: Duplex;
  readonly peer: string;
  readonly feed: Feed;
  readonly connected: Promise<void>;
}): ByteChannel {
  const { stream, peer, feed, connected } = options;
  let isCorked = false;
  let error: Error | undefined;
  const onError = (cause: Error): void => {
    error = cause;
    feed.end(cause);
  };
  const onEnd = (): void => feed.end(error);
  stream.on("error", onError);
  stream.on("end", onEnd);
  stream.on("close", onEnd);

  function uncork(): void {
    isCorked = false;
    if (!stream.destroyed) stream.uncork();
  }

  return {
    peer,
    connected,
    setReceiver: feed.setReceiver,
    send(...parts) {
      if (stream.destroyed || stream.writableEnded) return;
      if (!isCorked) {
        // One system call for all requests that are made in one turn of the loop.
        isCorked = true;
        stream.cork();
        process.nextTick(uncork);
      }
      for (const part of parts) stream.write(part);
    },
    release() {
      feed.stop();
      stream.off("data", feed.distribute);
      stream.off("end", onEnd);
      stream.off("close", onEnd);
      stream.pause();
      return stream;
    },
    end() {
      feed.stop();
      return new Promise((resolve) => {
        if (stream.destroyed) {
          resolve();
          return;
        }
        const timer = setTimeout(() => stream.destroy(), endTimeoutMs);
        stream.once("close", () => {
          clearTimeout(timer);
          resolve();
        });
        stream.resume();
        stream.end(() => stream.destroy());
      });
    },
    destroy() {
      feed.stop();
      stream.destroy();
    },
  };
}

function connectedPromise(socket: net.Socket, peer: string): Promise<void> {
  const connected = new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", (cause) =>
      reject(
        new Failure("network.unreachable", {
          message: `cannot connect to ${peer}: ${cause.message}`,
          cause,
        }),
      ),
    );
    socket.once("close", () =>
      reject(new Failure("network.unreachable", { message: `connection to ${peer} was closed` })),
    );
  });
  connected.catch(() => undefined);
  return connected;
}
