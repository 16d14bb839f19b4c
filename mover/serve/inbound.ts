import type { Duplex } from "node:stream";
import { Failure } from "@holdfast/shared/domain/failure";

/**
 * Bytes from a client, in order. Holds at most 128 KiB that were not asked for yet: then the stream is not read on until
 * somebody takes them. Reads one after the other.
 */
export type Inbound = {
  /** Exactly so many bytes. Fails with `network.unreachable` when the client goes before. */
  readonly read: (lengthBytes: number) => Promise<Buffer>;
  readonly skip: (lengthBytes: number) => Promise<void>;
  /** Gives the stream to another user; what came and was not read is returned. */
  readonly release: () => Buffer;
};

const heldBytesMax = 128 * 1024;
/** One read; more is skipped, not held. */
const readBytesMax = 64 * 1024;

export function createInbound(stream: Duplex): Inbound {
  let held: Buffer[] = [];
  let heldBytes = 0;
  let ended: Failure | undefined;
  let wake: (() => void) | undefined;

  const onData = (chunk: Buffer): void => {
    held.push(chunk);
    heldBytes += chunk.length;
    if (heldBytes > heldBytesMax) stream.pause();
    wake?.();
  };
  const onEnd = (cause?: unknown): void => {
    ended ??= new Failure("network.unreachable", {
      message: "the client closed the connection",
      ...(cause instanceof Error ? { cause } : {}),
    });
    wake?.();
  };
  stream.on("data", onData);
  stream.on("end", onEnd);
  stream.on("error", onEnd);
  stream.on("close", onEnd);

  function take(lengthBytes: number): Buffer {
    const all = held.length === 1 && held[0] !== undefined ? held[0] : Buffer.concat(held);
    const bytes = all.subarray(0, lengthBytes);
    const rest = all.subarray(lengthBytes);
    held = rest.length === 0 ? [] : [rest];
    heldBytes = rest.length;
    if (stream.isPaused() && heldBytes <= heldBytesMax) stream.resume();
    return bytes;
  }

  async function some(): Promise<void> {
    const before = heldBytes;
    while (heldBytes === before) {
      if (ended !== undefined) throw ended;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  return {
    async read(lengthBytes) {
      if (lengthBytes > readBytesMax) {
        throw new Failure("protocol.invalid", {
          message: `${lengthBytes} bytes are too many for one message`,
        });
      }
      while (heldBytes < lengthBytes) await some();
      return lengthBytes === 0 ? Buffer.alloc(0) : take(lengthBytes);
    },
    async skip(lengthBytes) {
      for (let left = lengthBytes; left > 0; ) {
        if (heldBytes === 0) await some();
        const length = Math.min(left, heldBytes);
        take(length);
        left -= length;
      }
    },
    release() {
      stream.pause();
      stream.off("data", onData);
      stream.off("end", onEnd);
      stream.off("error", onEnd);
      stream.off("close", onEnd);
      return Buffer.concat(held);
    },
  };
}
