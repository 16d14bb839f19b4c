import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import { freeBytes, toHex } from "@holdfast/shared/repository/format/bytes";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { RecordLocation, Relocations } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkOpeners, Opened } from "./chunk-openers.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import type { PackRange } from "./restore-plan.ts";

/**
 * A range of a pack that did not open as a whole, chunk by chunk: each from its own place, else from where relocations say that the same
 * bytes lie; chunks that lie side by side there are read together. Only bytes that have the chunk's id are taken from anywhere.
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

type Chunk = PackRange["chunks"][number];
type Placed = { readonly position: number; readonly at: RecordLocation };

export function createChunkRescue(o: {
  readonly repository: Pick<Repository, "store">;
  readonly openers: ChunkOpeners;
  readonly relocations: Relocations;
}): ChunkRescue {
  const { store } = o.repository;

  return async (range, reason, { into, signal }) => {
    const { chunks } = range;
    const starts: number[] = [];
    let total = 0;
    for (const { length } of chunks) {
      starts.push(total);
      total += length;
    }
    const bytes = new Uint8Array(into ?? new ArrayBuffer(total), 0, total);
    const ids = chunks.map(({ id }) => id);
    const damaged = new Map<number, Failure>();
    let bytesRead = 0;

    /** Chunks side by side in one pack; all or none. */
    async function take(run: readonly Placed[]): Promise<void> {
      const first = run[0]?.at;
      const last = run.at(-1)?.at;
      if (first === undefined || last === undefined) return;
      const { packId, epoch, offset } = first;
      const place = { offset, length: last.offset + last.storedLength - offset };
      const sealed = await store.getRange(packName(packId), place, { signal });
      bytesRead += sealed.length;
      const wanted = run.map(({ position, at }) => ({ ...chunkAt(position), ...at }));
      const opened = await o.openers.open({ packId, epoch, offset, bytes: sealed, chunks: wanted });
      let from = 0;
      for (const [index, { position }] of run.entries()) {
        const { length } = chunkAt(position);
        bytes.set(opened.bytes.subarray(from, from + length), starts[position] ?? 0);
        ids[position] = opened.ids[index] ?? chunkAt(position).id;
        from += length;
      }
      freeBytes(opened.bytes);
    }

    function chunkAt(position: number): Chunk {
      const chunk = chunks[position];
      if (chunk === undefined) throw new Error(`the range has no chunk ${position}`);
      return chunk;
    }

    async function tryTake(run: readonly Placed[]): Promise<Failure | undefined> {
      try {
        await take(run);
        return undefined;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        return error;
      }
    }

    let missing = isFailure(reason, "object.not-found") ? reason : undefined;
    for (const [position, chunk] of chunks.entries()) {
      const failure = missing ?? (await tryTake([{ position, at: { ...range, ...chunk } }]));
      if (failure === undefined) continue;
      if (isFailure(failure, "object.not-found")) missing = failure;
      damaged.set(position, failure);
    }

    /** Those of the positions that no other place has. */
    async function takeElsewhere(positions: Iterable<number>): Promise<ReadonlySet<number>> {
      const open = new Map<number, RecordLocation[]>();
      for (const position of positions) {
        const places = await o.relocations.find(range.packId, chunkAt(position).offset, { signal });
        open.set(position, [...places]);
      }
      // All of their nearest places at once, then what is still open one by one.
      const nearest = [...open].flatMap(([position, [at]]) =>
        at === undefined ? [] : [{ position, at }],
      );
      for (const run of sideBySide(nearest)) {
        const failure = await tryTake(run);
        if (failure === undefined) for (const { position } of run) open.delete(position);
      }
      for (const [position, places] of open) {
        for (const at of places) {
          if ((await tryTake([{ position, at }])) !== undefined) continue;
          open.delete(position);
          break;
        }
      }
      return new Set(open.keys());
    }

    let lost = await takeElsewhere(damaged.keys());
    if (lost.size > 0) {
      // A compaction may have moved them since relocations were read.
      o.relocations.forget();
      lost = await takeElsewhere(lost);
    }
    for (const position of lost) {
      const from = starts[position] ?? 0;
      bytes.fill(0, from, from + chunkAt(position).length);
    }
    return { bytes, ids, damaged, lost, bytesRead };
  };
}

/** Reading over a gap of this many bytes is cheaper than another request. */
const gapBytesMax = 128 * 1024;
const runBytesMax = 8 * 1024 * 1024;

function sideBySide(placed: readonly Placed[]): readonly (readonly Placed[])[] {
  const runs: Placed[][] = [];
  const byPack = Map.groupBy(placed, ({ at }) => `${toHex(at.packId)}/${at.epoch}`);
  for (const its of byPack.values()) {
    let run: Placed[] = [];
    for (const one of its.toSorted((left, right) => left.at.offset - right.at.offset)) {
      const first = run[0]?.at;
      const last = run.at(-1)?.at;
      const gap = last === undefined ? 0 : one.at.offset - (last.offset + last.storedLength);
      const length = one.at.offset + one.at.storedLength - (first?.offset ?? one.at.offset);
      if (run.length > 0 && (gap < 0 || gap > gapBytesMax || length > runBytesMax)) {
        runs.push(run);
        run = [];
      }
      run.push(one);
    }
    if (run.length > 0) runs.push(run);
  }
  return runs;
}
