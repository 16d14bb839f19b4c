import { toHex } from "@holdfast/shared/repository/format/bytes";
import { readIndexRows } from "@holdfast/shared/repository/index/read-index";
import type { PackFooter } from "@holdfast/shared/repository/pack/pack";
import { packName, recordId } from "@holdfast/shared/repository/pack/pack";
import type { RecordLocation } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkOpeners } from "./chunk-openers.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { type PackToRead, readPackEnds } from "./verify-packs.ts";
import type { BadRecord } from "./verify-points.ts";

/** Looks for records by what they hold: in what the index lists, then in the footers of all packs. Only what opens and has the id is a find. */
export type Wanted = {
  readonly id: Uint8Array;
  readonly length: number;
  /** Where it should be and is not. */
  readonly places: readonly BadRecord[];
};

export type Found = { readonly wanted: Wanted; readonly at: RecordLocation };

const footersInFlight = 8;
/** The index keeps the first bytes of ids only; these are enough to find a candidate, which is then checked. */
const idPrefixBytes = 12;

export async function searchRecords(o: {
  readonly repository: Repository;
  readonly openers: ChunkOpeners;
  readonly wanted: readonly Wanted[];
  readonly packs: readonly PackToRead[];
  /** Packs that may not be built on, as they are about to be removed. */
  readonly isForbidden: (packIdHex: string) => boolean;
  readonly onProgress: (now: { readonly bytesDone: number; readonly bytesTotal: number }) => void;
  readonly signal: AbortSignal;
}): Promise<readonly Found[]> {
  const { repository, signal } = o;
  const open = new Map(o.wanted.map((wanted) => [prefixOf(wanted.id), wanted]));
  const listed = new Set(o.packs.map(({ packId }) => toHex(packId)));
  const found: Found[] = [];

  async function tryAt(wanted: Wanted, at: RecordLocation): Promise<void> {
    const packId = toHex(at.packId);
    if (!open.has(prefixOf(wanted.id)) || !listed.has(packId) || o.isForbidden(packId)) return;
    if (wanted.places.some((bad) => bad.offset === at.offset && toHex(bad.packId) === packId)) {
      return;
    }
    if (!(await opens(o, wanted, at))) return;
    open.delete(prefixOf(wanted.id));
    found.push({ wanted, at });
  }

  const candidates: { readonly wanted: Wanted; readonly at: RecordLocation }[] = [];
  for await (const { key } of repository.store.list("index/", { signal })) {
    try {
      await readIndexRows(
        repository.objects,
        key,
        (pack, id, offset, storedLength) => {
          const wanted = open.get(prefixOf(id));
          if (wanted === undefined) return;
          const packId = Uint8Array.from(pack.packId);
          candidates.push({ wanted, at: { packId, epoch: pack.epoch, offset, storedLength } });
        },
        { signal },
      );
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
  }
  for (const { wanted, at } of candidates) await tryAt(wanted, at);

  let done = 0;
  const next = o.packs[Symbol.iterator]();
  async function work(): Promise<void> {
    for (const pack of next) {
      if (open.size === 0) return;
      signal.throwIfAborted();
      await searchPack(pack);
      done += 1;
      o.onProgress({ bytesDone: done, bytesTotal: o.packs.length });
    }
  }
  async function searchPack(pack: PackToRead): Promise<void> {
    let footer: PackFooter;
    try {
      footer = await readPackEnds(repository, pack, signal);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return;
    }
    const { records, epoch } = footer;
    for (let row = 0; row < records.count; row += 1) {
      const wanted = open.get(prefixOf(recordId(records, row)));
      if (wanted === undefined) continue;
      const offset = records.offsets[row] ?? 0;
      const storedLength = records.storedLengths[row] ?? 0;
      await tryAt(wanted, { packId: pack.packId, epoch, offset, storedLength });
    }
  }
  if (open.size > 0) await Promise.all(Array.from({ length: footersInFlight }, work));
  return found;
}

/** Whether the record lies there, whole. */
async function opens(
  o: {
    readonly repository: Repository;
    readonly openers: ChunkOpeners;
    readonly signal: AbortSignal;
  },
  { id, length }: Wanted,
  at: RecordLocation,
): Promise<boolean> {
  const { offset, storedLength } = at;
  try {
    const range = { offset, length: storedLength };
    const bytes = await o.repository.store.getRange(packName(at.packId), range, o);
    await o.openers.open({ ...at, bytes, chunks: [{ offset, storedLength, length, id }] });
    return true;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return false;
  }
}

function prefixOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, idPrefixBytes).toString("latin1");
}
