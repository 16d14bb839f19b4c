import { Failure } from "@holdfast/shared/domain/failure";
import type { ByteReceiver } from "./byte-channel.ts";
import { connectionLost } from "./connection-lost.ts";

/** Received bytes in order, for the handshake, where sizes are small and known one after the other. */
export type ByteQueue = ByteReceiver & {
  read(lengthBytes: number): Promise<Buffer>;
  /** Bytes received and not read. */
  readonly leftoverBytes: number;
  /** Ends every read, now and later, with this error. */
  fail(error: Error): void;
};

export function createByteQueue(peer: string, bytesMax = 128 * 1024): ByteQueue {
  const buffer = Buffer.allocUnsafe(bytesMax);
  let start = 0;
  let end = 0;
  let failure: Error | undefined;
  let waiting: { lengthBytes: number; resolve(bytes: Buffer): void; reject(error: Error): void };
  let isWaiting = false;

  function settle(): void {
    if (!isWaiting) return;
    if (end - start >= waiting.lengthBytes) {
      isWaiting = false;
      waiting.resolve(take(waiting.lengthBytes));
    } else if (failure !== undefined) {
      isWaiting = false;
      waiting.reject(failure);
    }
  }

  function take(lengthBytes: number): Buffer {
    const bytes = Buffer.from(buffer.subarray(start, start + lengthBytes));
    start += lengthBytes;
    if (start === end) {
      start = 0;
      end = 0;
    }
    return bytes;
  }

  function fail(error: Error): void {
    failure ??= error;
    settle();
  }

  return {
    isSteady: false,
    target() {
      if (end === bytesMax && start > 0) {
        buffer.copyWithin(0, start, end);
        end -= start;
        start = 0;
      }
      // Empty only when the server sends more than any handshake holds: the channel then refuses the rest.
      return buffer.subarray(end);
    },
    received(lengthBytes) {
      end += lengthBytes;
      settle();
    },
    ended(cause) {
      fail(connectionLost(peer, cause, " during the handshake"));
    },
    fail,
    get leftoverBytes() {
      return end - start;
    },
    read(lengthBytes) {
      if (lengthBytes > bytesMax / 2) {
        const message = `${peer} announced ${lengthBytes} bytes in the handshake`;
        return Promise.reject(new Failure("protocol.invalid", { message }));
      }
      return new Promise((resolve, reject) => {
        waiting = { lengthBytes, resolve, reject };
        isWaiting = true;
        settle();
      });
    },
  };
}
