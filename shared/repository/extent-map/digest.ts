import { createKeyedHash, idBytes } from "../chunk/keyed-hash.ts";
import { createByteWriter } from "../format/bytes.ts";
import { identityKey, type RepositorySecrets } from "../keys/secrets.ts";

/**
 * Digests that prove placement: over (offset on the disk, length, id) of what was cut and hashed, never over the extent
 * map's encoding. A restore computes the same from what it wrote where.
 */
export type Digests = {
  readonly leaf: (
    leaf: { readonly offset: number; readonly lengthBytes: number },
    placed: readonly Placed[],
  ) => Uint8Array;
  /** `leaves` in order, all of them. */
  readonly disk: (sizeBytes: number, leaves: Iterable<Uint8Array>) => Uint8Array;
};

/** `offset` is the disk's. */
export type Placed = { readonly offset: number; readonly length: number; readonly id: Uint8Array };

export function createDigests(secrets: RepositorySecrets): Digests {
  const hash = createKeyedHash(identityKey(secrets, "digest"));
  return {
    leaf: ({ offset, lengthBytes }, placed) => {
      const ordered = [...placed].sort((left, right) => left.offset - right.offset);
      const text = createByteWriter(24 + ordered.length * (12 + idBytes))
        .bytes(Buffer.from("HFLEAF1\0", "latin1"))
        .u64(offset)
        .u64(lengthBytes);
      for (const { offset: at, length, id } of ordered) text.u64(at).u32(length).bytes(id);
      return hash.hash(text.done());
    },
    disk: (sizeBytes, leaves) => {
      const text = createByteWriter(4096).bytes(Buffer.from("HFDISK1\0", "latin1")).u64(sizeBytes);
      for (const leaf of leaves) text.bytes(leaf);
      return hash.hash(text.done());
    },
  };
}
