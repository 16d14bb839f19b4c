import { isDeepStrictEqual } from "node:util";
import { isFailure } from "../../domain/failure.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { createKeyedHash } from "../chunk/keyed-hash.ts";
import { openRecord } from "../chunk/sealed-chunk.ts";
import { corrupt, sameBytes, toHex } from "../format/bytes.ts";
import { identityKey, type RepositorySecrets, sealKey } from "../keys/secrets.ts";
import { packName } from "../pack/pack.ts";
import { createRelocations, type RecordLocation, type Relocations } from "../pack/relocations.ts";
import { createDigests, type Placed } from "./digest.ts";
import { decodeLeaf, type Leaf, type LeafPack, leafEntries } from "./leaf.ts";
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
   * read. A record that is missing or damaged in its pack is looked for where relocations say. Fails with `object.corrupt`,
   * `object.not-found`.
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
  readonly relocations?: Relocations;
}): LeafStore {
  const { store, secrets } = o;
  const hash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const digests = createDigests(secrets);
  const relocations = o.relocations ?? createRelocations(o);

  type LeafRecord = {
    readonly at: RecordLocation;
    readonly rawLength: number;
    readonly id: Uint8Array;
  };

  function open({ at, rawLength, id }: LeafRecord, sealed: Uint8Array): Uint8Array {
    const packKey = sealKey(secrets, at.epoch, "pack", at.packId).key;
    const plain = openRecord({ ...secrets, ...at, packKey }, sealed, rawLength);
    if (!sameBytes(hash.hash(plain), id)) {
      throw corrupt(`record at ${at.offset} of ${packName(at.packId)} is another one`);
    }
    return plain;
  }

  /** From the first other place where it is whole. */
  async function openElsewhere(
    record: LeafRecord,
    reason: unknown,
    options?: CallOptions,
  ): Promise<Uint8Array> {
    const found = await findElsewhere(record, options);
    if (found !== undefined) return found;
    relocations.forget();
    const foundNow = await findElsewhere(record, options);
    if (foundNow !== undefined) return foundNow;
    throw reason;
  }

  async function findElsewhere(
    record: LeafRecord,
    options?: CallOptions,
  ): Promise<Uint8Array | undefined> {
    const { packId, offset } = record.at;
    for (const at of await relocations.find(packId, offset, options)) {
      try {
        const range = { offset: at.offset, length: at.storedLength };
        return open({ ...record, at }, await store.getRange(packName(at.packId), range, options));
      } catch (error) {
        if (!isUnreadable(error)) throw error;
      }
    }
    return undefined;
  }

  async function readRecords(
    ref: LeafRef,
    options?: CallOptions,
  ): Promise<readonly [summary: Uint8Array, entries: Uint8Array]> {
    const { packId, epoch, offset, summaryStored, entriesStored } = ref;
    const summary = {
      at: { packId, epoch, offset, storedLength: summaryStored },
      rawLength: ref.summaryRaw,
      id: ref.summaryId,
    };
    const entries = {
      at: { packId, epoch, offset: offset + summaryStored, storedLength: entriesStored },
      rawLength: ref.entriesRaw,
      id: ref.entriesId,
    };
    try {
      const range = { offset, length: summaryStored + entriesStored };
      const bytes = await store.getRange(packName(packId), range, options);
      return [
        open(summary, bytes.subarray(0, summaryStored)),
        open(entries, bytes.subarray(summaryStored)),
      ];
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const read = async (record: LeafRecord): Promise<Uint8Array> => {
        const range = { offset: record.at.offset, length: record.at.storedLength };
        try {
          return open(record, await store.getRange(packName(packId), range, options));
        } catch (reason) {
          if (!isUnreadable(reason)) throw reason;
          return await openElsewhere(record, error, options);
        }
      };
      return [await read(summary), await read(entries)];
    }
  }

  return {
    read: async (ref, place, options) => {
      const [summary, entries] = await readRecords(ref, options);
      const leaf = decodeLeaf({ summary, entries });
      if (leaf.index !== place.index || leaf.lengthBytes !== place.lengthBytes) {
        throw corrupt(`leaf ${place.index} in ${packName(ref.packId)} is of another range`);
      }
      if (!sameBytes(digests.leaf(place, placedBy(leaf, place.offset)), ref.digest)) {
        throw corrupt(`leaf ${place.index} places chunks elsewhere than they were read`);
      }
      if (!isDeepStrictEqual(leaf.packs.map(plainPack), ref.packs.map(plainPack))) {
        throw corrupt(`leaf ${place.index} needs other packs than its disk's record says`);
      }
      return { summary, entries, leaf };
    },
  };
}

function plainPack({ packId, epoch, entries, storedBytes }: LeafPack): readonly unknown[] {
  return [toHex(packId), epoch, entries, storedBytes];
}

/** Damaged or gone, as against a store that doesn't answer now. */
function isUnreadable(error: unknown): boolean {
  return isFailure(error, "object.corrupt") || isFailure(error, "object.not-found");
}

export function placedBy(leaf: Leaf, diskOffset: number): readonly Placed[] {
  return Array.from(leafEntries(leaf), ({ offset, length, id }) => ({
    offset: diskOffset + offset,
    length,
    id,
  }));
}
