import { createKeyedHash } from "@holdfast/shared/repository/chunk/keyed-hash";
import { decodeLeafSummary } from "@holdfast/shared/repository/extent-map/leaf";
import type { LeafRef } from "@holdfast/shared/repository/extent-map/leaf-table";
import { identityKey } from "@holdfast/shared/repository/keys/secrets";
import { putOwn } from "@holdfast/shared/repository/objects";
import {
  checkSealedPack,
  createPackBuilder,
  packName,
} from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";

/** A leaf whose chunks are all in the store. */
export type FinishedLeaf = {
  readonly index: number;
  readonly summary: Uint8Array;
  readonly entries: Uint8Array;
  readonly digest: Uint8Array;
};

export type WrittenLeaves = {
  readonly refs: readonly { readonly index: number; readonly ref: LeafRef }[];
  readonly bytesStored: number;
};

/** Stores leaves in metadata packs; resolves when they are in the store. */
export async function writeLeaves(
  repository: Repository,
  session: Session,
  leaves: readonly FinishedLeaf[],
  signal: AbortSignal,
): Promise<WrittenLeaves> {
  const { secrets, settings, store } = repository;
  const chunkHash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const refs: { index: number; ref: LeafRef }[] = [];
  let bytesStored = 0;
  let next = 0;
  while (next < leaves.length) {
    const room = new SharedArrayBuffer(256 * 1024);
    const packId = session.newId();
    const pack = createPackBuilder({ kind: "metadata-pack", secrets, packId, room });
    while (next < leaves.length && pack.sizeBytes() < settings.packBytes) {
      const leaf = leaves[next];
      if (leaf === undefined) break;
      next += 1;
      const summaryId = chunkHash.hash(leaf.summary);
      const entriesId = chunkHash.hash(leaf.entries);
      const summary = pack.append("leaf-summary", summaryId, leaf.summary);
      const entries = pack.append("leaf-entries", entriesId, leaf.entries);
      const ref: LeafRef = {
        packId: pack.packId,
        epoch: pack.epoch,
        offset: summary.offset,
        summaryStored: summary.storedLength,
        summaryRaw: leaf.summary.length,
        entriesStored: entries.storedLength,
        entriesRaw: leaf.entries.length,
        summaryId,
        entriesId,
        digest: leaf.digest,
        packs: decodeLeafSummary(leaf.summary).packs,
      };
      refs.push({ index: leaf.index, ref });
    }
    const sealed = pack.seal();
    checkSealedPack(sealed, { secrets, chunkHash });
    await putOwn(store, packName(pack.packId), sealed.bytes, { signal });
    bytesStored += sealed.bytes.length;
  }
  return { refs, bytesStored };
}
