import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import { freeBytes } from "@holdfast/shared/repository/format/bytes";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { RecordLocation, Relocations } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkOpeners, Opened } from "./chunk-openers.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import type { PackRange } from "./restore-plan.ts";

/**
 * A range of a pack that did not open as a whole, chunk by chunk: each from its own place, else from where relocations say that the same
 * bytes lie. Only bytes that have the chunk's id are taken from anywhere.
 */
export type Rescued = Opened & {
  /** Positions among the range's chunks whose own place is damaged or missing, and why. */
  readonly damaged: ReadonlyMap<number, Failure>;
  /** Those of them that no other place holds either: their bytes are zeros, their ids what they should be. */
  readonly lost: ReadonlySet<number>;
  /** From storage. */
  readonly bytesRead: number;
};

export type ChunkRescue = (
  range: PackRange,
  reason: Failure,
  o: { readonly into?: SharedArrayBuffer; readonly signal: AbortSignal },
) => Promise<Rescued>;

export function createChunkRescue(o: {
  readonly repository: Repository;
  readonly openers: ChunkOpeners;
  readonly relocations: Relocations;
}): ChunkRescue {
  const { store } = o.repository;

  return async (range, reason, { into, signal }) => {
    const total = range.chunks.reduce((sum, { length }) => sum + length, 0);
    const bytes = new Uint8Array(into ?? new ArrayBuffer(total), 0, total);
    const ids: Uint8Array[] = [];
    const damaged = new Map<number, Failure>();
    const lost = new Set<number>();
    let bytesRead = 0;
    let isPackMissing = isFailure(reason, "object.not-found");

    async function openAt(chunk: PackRange["chunks"][number], at: RecordLocation): Promise<Opened> {
      const { packId, epoch, offset, storedLength } = at;
      const place = { offset, length: storedLength };
      const sealed = await store.getRange(packName(packId), place, { signal });
      bytesRead += sealed.length;
      const chunks = [{ ...chunk, offset, storedLength }];
      return await o.openers.open({ packId, epoch, offset, bytes: sealed, chunks });
    }

    async function openElsewhere(chunk: PackRange["chunks"][number]): Promise<Opened | undefined> {
      for (const at of await o.relocations.find(range.packId, chunk.offset, { signal })) {
        try {
          return await openAt(chunk, at);
        } catch (error) {
          if (!isUnreadable(error)) throw error;
        }
      }
      return undefined;
    }

    let from = 0;
    for (const [position, chunk] of range.chunks.entries()) {
      let opened: Opened | undefined;
      try {
        if (isPackMissing) throw reason;
        opened = await openAt(chunk, { ...range, ...chunk });
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        isPackMissing ||= isFailure(error, "object.not-found");
        damaged.set(position, error);
        opened = await openElsewhere(chunk);
      }
      if (opened === undefined) {
        lost.add(position);
        bytes.fill(0, from, from + chunk.length);
      } else {
        bytes.set(opened.bytes, from);
        freeBytes(opened.bytes);
      }
      ids.push(opened?.ids[0] ?? chunk.id);
      from += chunk.length;
    }
    return { bytes, ids, damaged, lost, bytesRead };
  };
}
