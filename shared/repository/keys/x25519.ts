import { createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";
import { corrupt } from "../format/bytes.ts";

/** X25519 (RFC 7748) on plain 32 bytes; Node's own takes keys as DER, whose beginnings never differ. */
const privateDer = Buffer.from("302e020100300506032b656e04220420", "hex");
const publicDer = Buffer.from("302a300506032b656e032100", "hex");

/** Any 32 random bytes are a private key. */
export function publicKeyOf(privateKey: Uint8Array): Uint8Array {
  const der = createPublicKey(privateObject(privateKey)).export({ format: "der", type: "spki" });
  return Uint8Array.from(der.subarray(publicDer.length));
}

/** Fails with `object.corrupt` for a public key that gives every private key the same secret. */
export function sharedSecret(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const other = createPublicKey({
    key: Buffer.concat([publicDer, publicKey]),
    format: "der",
    type: "spki",
  });
  try {
    return diffieHellman({ privateKey: privateObject(privateKey), publicKey: other });
  } catch (cause) {
    throw corrupt("a public key of the repository is of low order", { cause });
  }
}

function privateObject(privateKey: Uint8Array) {
  const key = Buffer.concat([privateDer, privateKey]);
  return createPrivateKey({ key, format: "der", type: "pkcs8" });
}
