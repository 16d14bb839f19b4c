import { Blake3Hasher } from "@napi-rs/blake-hash";

export const idBytes = 32;

/** BLAKE3 keyed with 32 bytes. One instance may be used for any number of messages, one after the other. */
export type KeyedHash = {
  readonly hash: (bytes: Uint8Array) => Uint8Array;
  readonly hashAll: (parts: readonly Uint8Array[]) => Uint8Array;
};

export function createKeyedHash(key: Uint8Array): KeyedHash {
  // The native side aborts the process on any other length.
  if (key.length !== 32) throw new Error(`a BLAKE3 key has 32 bytes, not ${key.length}`);
  const hasher = Blake3Hasher.newKeyed(Buffer.from(key));
  const hashAll = (parts: readonly Uint8Array[]): Uint8Array => {
    hasher.reset();
    for (const part of parts) hasher.update(part);
    return hasher.digestBuffer();
  };
  return { hash: (bytes) => hashAll([bytes]), hashAll };
}
