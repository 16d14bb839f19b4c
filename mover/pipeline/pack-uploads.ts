import { toHex } from "@holdfast/shared/repository/format/bytes";
import {
  encodeIndexSegment,
  type IndexedPack,
} from "@holdfast/shared/repository/index/index-segment";
import { putOwn } from "@holdfast/shared/repository/objects";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { LeafExecutor } from "./leaf-executor.ts";
import type { FromEngine } from "./leaf-messages.ts";
import { createBell, createSlots } from "./limits.ts";
import type { TransferOptions } from "./transfer-disk.ts";

/** Uploads packs, several at once, and remembers what the index has to say about them. */
export type PackUploads = {
  /** Resolves when the pack is in the store. */
  readonly upload: (
    pack: FromEngine & { type: "pack" },
    from: LeafExecutor,
    signal: AbortSignal,
  ) => Promise<void>;
  readonly isUploaded: (packId: string) => boolean;
  /** Waits until few enough packs wait to be uploaded: this is where a slow store holds back the reading. */
  readonly room: (signal: AbortSignal) => Promise<void>;
  readonly isIdle: () => boolean;
  readonly idle: (signal: AbortSignal) => Promise<void>;
  /** Writes an index segment if at least `chunksMin` chunks are not in one yet; their packs are in the store. */
  readonly writeIndex: (chunksMin: number, signal: AbortSignal) => Promise<void>;
  readonly bytesNew: () => number;
  readonly bytesStored: () => number;
};

const uploadsMax = 8;
/** While this many packs wait or are being uploaded, the engines get nothing more to do; each may still finish the pack it works on. */
const waitingMax = 2;

export function createPackUploads(
  o: Pick<TransferOptions, "repository" | "session" | "index" | "onIndexSegment">,
): PackUploads {
  const { repository, session, index } = o;
  const slots = createSlots(uploadsMax);
  const bell = createBell();
  const uploaded = new Set<string>();
  let waiting = 0;
  let bytesNew = 0;
  let bytesStored = 0;
  let unindexed: IndexedPack[] = [];
  let unindexedChunks = 0;

  return {
    isUploaded: (packId) => uploaded.has(packId),
    bytesNew: () => bytesNew,
    bytesStored: () => bytesStored,
    room: (signal) => bell.until(() => waiting < waitingMax, signal),
    isIdle: () => waiting === 0,
    idle: (signal) => bell.until(() => waiting === 0, signal),
    upload: async (pack, from, signal) => {
      waiting += 1;
      await slots.take(signal);
      try {
        const bytes = new Uint8Array(pack.buffer, 0, pack.length);
        await putOwn(repository.store, packName(pack.packId), bytes, { signal });
      } finally {
        slots.give();
      }
      const { epoch, records, buffer } = pack;
      const packId = Uint8Array.from(pack.packId);
      uploaded.add(toHex(packId));
      index?.add({ packId, epoch }, records);
      unindexed.push({ packId, epoch, records });
      unindexedChunks += records.count;
      bytesNew += pack.bytesNew;
      bytesStored += pack.length;
      from.post({ type: "uploaded", packId: toHex(packId), buffer });
      waiting -= 1;
      bell.ring();
    },
    writeIndex: async (chunksMin, signal) => {
      if (unindexedChunks === 0 || unindexedChunks < chunksMin) return;
      const segment = encodeIndexSegment(unindexed);
      const packs = unindexed;
      unindexed = [];
      unindexedChunks = 0;
      const name = await session.objects.putNew("index", "index-segment", segment, { signal });
      o.onIndexSegment?.(name, packs);
      bytesStored += segment.length;
    },
  };
}
