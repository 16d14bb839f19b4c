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
    const bytes = new Uint8Array(lengthBytes);
    let done = 0;
    for await (const piece of body) {
      signal?.throwIfAborted();
      if (done + piece.length > lengthBytes) throw wrongLength(what, lengthBytes, "more");
      bytes.set(piece, done);
      done += piece.length;
    }
    if (done < lengthBytes) throw wrongLength(what, lengthBytes, `${done}`);
    return bytes;
  } finally {
    // Gives the socket back when the body was left early; does nothing after its end.
    body.destroy();
  }
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

type ByteStream = AsyncIterable<Uint8Array> & { destroy(): void };

function isByteStream(body: unknown): body is ByteStream {
  return (
    typeof body === "object" &&
    body !== null &&
    Symbol.asyncIterator in body &&
    "destroy" in body &&
    typeof body.destroy === "function"
  );
}
