import { deflateRawSync, inflateRawSync } from "node:zlib";
import { z } from "zod";
import { Failure } from "../../domain/failure.ts";

/**
 * Free-form JSON as one attribute: text while it is small, deflated above, so that it comes back exactly as it went in
 * and an item stays below DynamoDB's 400 KB.
 */
const textBytesMax = 16 * 1024;
/** Two of these and the rest of an item fit into 400 KB. */
const storedBytesMax = 180 * 1024;
/** Bounds what an attribute may inflate to. */
const jsonBytesMax = 16 * 1024 * 1024;

const JsonObject = z.record(z.string(), z.unknown());

export function storeJson(what: string, value: unknown): string | Uint8Array {
  const text = JSON.stringify(value);
  if (Buffer.byteLength(text) <= textBytesMax) return text;
  const packed = text.length > jsonBytesMax ? undefined : deflateRawSync(text);
  if (packed !== undefined && packed.byteLength <= storedBytesMax) return new Uint8Array(packed);
  throw new Failure("unsupported", {
    message: `${what} has ${text.length} bytes of JSON, more than the catalog holds in one item; it belongs in the repository`,
  });
}

export function readJson(stored: unknown): Record<string, unknown> | undefined {
  if (stored === undefined) return undefined;
  const text =
    stored instanceof Uint8Array
      ? inflateRawSync(stored, { maxOutputLength: jsonBytesMax }).toString()
      : z.string().parse(stored);
  return JsonObject.parse(JSON.parse(text));
}
