import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { createKeyedHash } from "../chunk/keyed-hash.ts";
import { openRecord } from "../chunk/sealed-chunk.ts";
import { corrupt, sameBytes } from "../format/bytes.ts";
import { identityKey, type RepositorySecrets, sealKey } from "../keys/secrets.ts";
import { packName } from "../pack/pack.ts";
import { createDigests, type Placed } from "./digest.ts";
import { decodeLeaf, type Leaf, leafEntries } from "./leaf.ts";
import type { LeafRef } from "./leaf-table.ts";

/** A leaf as it is stored and as it is used. */
export type LoadedLeaf = {
  readonly summary: Uint8Array;
  readonly entries: Uint8Array;
  readonly leaf: Leaf;
};

export type LeafStore = {
  /**
   * Reads, authenticates and checks the leaf against its reference and digest: it says exactly what was hashed when the disk was
   * read. Fails with `object.corrupt`, `object.not-found`.
   */
  readonly read: (
    ref: LeafRef,
    place: { readonly index: number; readonly offset: number; readonly lengthBytes: number },
    options?: CallOptions,
  ) => Promise<LoadedLeaf>;
};

export function createLeafStore(o: {
  readonly store: ObjectStore;
  readonly secrets: RepositorySecrets;
}): LeafStore {
  const { store, secrets } = o;
  const hash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const digests = createDigests(secrets);
  return {
    read: async (ref, place, options) => {
      const range = { offset: ref.offset, length: ref.summaryStored + ref.entriesStored };
      const bytes = await store.getRange(packName(ref.packId), range, options);
      const packKey = sealKey(secrets, ref.epoch, "pack", ref.packId).key;
      const record = (from: number, stored: number, raw: number, id: Uint8Array): Uint8Array => {
        const at = {
          repositoryId: secrets.repositoryId,
          packId: ref.packId,
          packKey,
          offset: ref.offset + from,
        };
        const plain = openRecord(at, bytes.subarray(from, from + stored), raw);
        if (!sameBytes(hash.hash(plain), id)) {
          throw corrupt(`leaf ${place.index} in ${packName(ref.packId)} is another one`);
        }
        return plain;
      };
      const summary = record(0, ref.summaryStored, ref.summaryRaw, ref.summaryId);
      const entries = record(ref.summaryStored, ref.entriesStored, ref.entriesRaw, ref.entriesId);
      const leaf = decodeLeaf({ summary, entries });
      if (leaf.index !== place.index || leaf.lengthBytes !== place.lengthBytes) {
        throw corrupt(`leaf ${place.index} in ${packName(ref.packId)} is of another range`);
      }
      if (!sameBytes(digests.leaf(place, placedBy(leaf, place.offset)), ref.digest)) {
        throw corrupt(`leaf ${place.index} places chunks elsewhere than they were read`);
      }
      return { summary, entries, leaf };
    },
  };
}

export function placedBy(leaf: Leaf, diskOffset: number): readonly Placed[] {
  return Array.from(leafEntries(leaf), ({ offset, length, id }) => ({
    offset: diskOffset + offset,
    length,
    id,
  }));
}
