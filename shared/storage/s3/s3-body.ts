import type { GetObjectCommandOutput } from "@aws-sdk/client-s3";
import { Failure } from "@holdfast/shared/domain/failure";
import type { ByteRange } from "@holdfast/shared/ports/object-store";

/** Objects of a repository are far smaller; a store that announces more is not believed. */
const bodyBytesMax = 1024 ** 3;

/**
 * Reads an answer's body and accounts for every byte: with a range it must be a 206 of exactly that range, without one
 * a 200 of the announced length. Less is `storage.unreachable` when the connection ended early, else `object.corrupt`.
 */
export async function readBody(
  answer: GetObjectCommandOutput,
  options: {
    readonly what: string;
    readonly range?: ByteRange;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Uint8Array> {
  const { what, range, signal } = options;
  const body: unknown = answer.Body;
  if (!isByteStream(body))
    throw new Failure("storage.unreachable", { message: `${what}: no body` });
  try {
    const lengthBytes = announcedLength(answer, what, range);
    // Not cleared first: every byte of it is filled, or it is given to nobody.
    const bytes = new Uint8Array(Buffer.allocUnsafeSlow(lengthBytes).buffer);
    const done = await fill(bytes, body, { what, signal });
    if (done < lengthBytes) throw wrongLength(what, lengthBytes, `${done}`);
    return bytes;
  } finally {
    // Gives the socket back when the body was left early; does nothing after its end.
    body.destroy();
  }
}

/** By events: a loop over the stream costs a good part of what receiving does. Resolves to the bytes that came. */
function fill(
  bytes: Uint8Array,
  body: ByteStream,
  { what, signal }: { readonly what: string; readonly signal: AbortSignal | undefined },
): Promise<number> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const stop = (): void => reject(signal?.reason);
    const settle = (settled: () => void): void => {
      signal?.removeEventListener("abort", stop);
      settled();
    };
    body.on("data", (piece) => {
      if (done + piece.length > bytes.length) {
        settle(() => reject(wrongLength(what, bytes.length, "more")));
        body.destroy();
        return;
      }
      bytes.set(piece, done);
      done += piece.length;
    });
    body.on("end", () => settle(() => resolve(done)));
    body.on("error", (error) => settle(() => reject(error)));
    // After an end or an error this changes nothing.
    body.on("close", () => settle(() => resolve(done)));
    if (signal?.aborted === true) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

function announcedLength(
  answer: GetObjectCommandOutput,
  what: string,
  range: ByteRange | undefined,
): number {
  const length = answer.ContentLength;
  if (length === undefined || length > bodyBytesMax) {
    throw new Failure("storage.unreachable", {
      message: `${what}: the store announced ${length ?? "no"} bytes`,
    });
  }
  if (range === undefined) return length;
  const status = answer.$metadata.httpStatusCode;
  if (status !== 206) {
    throw new Failure("storage.unreachable", {
      message: `${what}: the store answered ${status} to a request for a range`,
    });
  }
  const wanted = `bytes ${range.offset}-${range.offset + range.length - 1}/`;
  if (length === range.length && answer.ContentRange?.startsWith(wanted) === true) return length;
  throw new Failure("object.corrupt", {
    message: `${what}: asked for ${wanted.slice(0, -1)}, got ${length} bytes as ${answer.ContentRange}`,
  });
}

function wrongLength(what: string, announced: number, got: string): Failure {
  return new Failure("storage.unreachable", {
    message: `${what}: the store announced ${announced} bytes and sent ${got}`,
  });
}

type ByteStream = {
  on(event: "data", listener: (piece: Uint8Array) => void): unknown;
  on(event: "end" | "close", listener: () => void): unknown;
  on(event: "error", listener: (error: unknown) => void): unknown;
  destroy(): unknown;
};

function isByteStream(body: unknown): body is ByteStream {
  return (
    typeof body === "object" &&
    body !== null &&
    "on" in body &&
    typeof body.on === "function" &&
    "destroy" in body &&
    typeof body.destroy === "function"
  );
}
