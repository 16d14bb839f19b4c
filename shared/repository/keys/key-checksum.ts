import { createHash } from "node:crypto";
import { corrupt, sameBytes } from "../format/bytes.ts";

const checksumBytes = 32;

/** Tells damage from a wrong key; it protects nothing. */
export function withChecksum(body: Uint8Array): Uint8Array {
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

export function checkedBody(bytes: Uint8Array, name: string): Uint8Array {
  const body = bytes.subarray(0, Math.max(bytes.length - checksumBytes, 0));
  const stored = bytes.subarray(body.length);
  if (!sameBytes(createHash("sha256").update(body).digest(), stored)) {
    throw corrupt(`${name} does not match its checksum`, { key: name });
  }
  return body;
}
