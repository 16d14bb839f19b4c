import { createCipheriv, createDecipheriv, type KeyObject } from "node:crypto";
import { corrupt } from "../format/bytes.ts";

export const tagBytes = 16;

/**
 * AES-256-GCM: ciphertext, then the tag. The nonce is 12 bytes and never used twice with one key. Keys come as objects: Node
 * takes ten times as long to look at bytes as at an object, for each chunk.
 */
export function encrypt(
  key: KeyObject,
  nonce: Uint8Array,
  aad: Uint8Array,
  plain: Uint8Array,
): Uint8Array {
  return Buffer.concat(encryptParts(key, nonce, aad, plain));
}

export function encryptParts(
  key: KeyObject,
  nonce: Uint8Array,
  aad: Uint8Array,
  plain: Uint8Array,
): readonly [ciphertext: Uint8Array, tag: Uint8Array] {
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(aad);
  const ciphertext = cipher.update(plain);
  cipher.final();
  return [ciphertext, cipher.getAuthTag()];
}

/** Fails with `object.corrupt` unless every byte, the nonce and the bound data are what was sealed. */
export function decrypt(
  key: KeyObject,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
  name: string,
): Uint8Array {
  if (sealed.length < tagBytes) throw corrupt(`${name} is shorter than its tag`, { name });
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plain = decipher.update(sealed.subarray(0, sealed.length - tagBytes));
  try {
    decipher.final();
  } catch (cause) {
    throw corrupt(`${name} does not authenticate: its bytes, name or place were changed`, {
      name,
      cause,
    });
  }
  return plain;
}

export const zeroNonce: Uint8Array = new Uint8Array(12);
