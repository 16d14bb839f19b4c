import type { Readable } from "node:stream";
import { Failure } from "@holdfast/shared/domain/failure";

/** Gathers what a command prints, up to a limit over both streams together. */
export type OutputCollector = {
  /** Rejects with `host.output-invalid` once there is too much; never resolves. */
  readonly exceeded: Promise<never>;
  text(): { readonly stdout: string; readonly stderr: string };
};

export const outputBytesMaxDefault = 8 * 1024 * 1024;

export function collectOutput(options: {
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly bytesMax: number;
  /** For the message. */
  readonly what: string;
}): OutputCollector {
  const { stdout, stderr, bytesMax, what } = options;
  const exceeded = Promise.withResolvers<never>();
  exceeded.promise.catch(() => undefined);
  let bytesLeft = bytesMax;
  const gather = (stream: Readable): Buffer[] => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => {
      if (bytesLeft < 0) return;
      bytesLeft -= chunk.length;
      if (bytesLeft >= 0) chunks.push(chunk);
      else {
        const message = `${what} printed more than ${bytesMax} bytes`;
        exceeded.reject(new Failure("host.output-invalid", { message }));
      }
    });
    return chunks;
  };
  const [out, err] = [gather(stdout), gather(stderr)];
  return {
    exceeded: exceeded.promise,
    text: () => ({
      stdout: Buffer.concat(out).toString("utf8"),
      stderr: Buffer.concat(err).toString("utf8"),
    }),
  };
}
