import { packName } from "@holdfast/shared/repository/pack/pack";
import { createRelocations } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createChunkOpeners } from "./chunk-openers.ts";
import { createSlots } from "./limits.ts";
import { chunkKey, createOpenedChunks } from "./opened-chunks.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { createChunkRescue } from "./rescue-chunks.ts";
import type { PackRange } from "./restore-plan.ts";

/**
 * Gets chunks from the store and opens them: authenticated and hashed before anybody sees a byte. What was opened is kept
 * for a while, and what is on its way is not asked for twice.
 *
 * What always holds: memory is `cacheBytes` and at most 16 MiB for each of 14 ranges in flight, whatever is asked for.
 */
export type ChunkFetcher = AsyncDisposable & {
  /** Starts to get the range's chunks. `ahead`: nobody waits for them yet. */
  readonly fetch: (range: PackRange, urgency: "wanted" | "ahead") => void;
  /** Here or on its way. */
  readonly isKnown: (key: string) => boolean;
  /** Undefined when it is neither here nor on its way. Fails as its range did: damage of one chunk fails all of its range. */
  readonly get: (key: string) => Promise<Uint8Array> | undefined;
  /** It was in a range that has damage: to be asked for alone, so that its neighbours' damage is not its own. */
  readonly isSuspect: (key: string) => boolean;
  readonly cacheBytes: number;
};

const wantedInFlight = 8;
const aheadInFlight = 6;
/** All are forgotten when there are more: they cost a longer way, nothing else. */
const suspectsMax = 65_536;

export function createChunkFetcher(o: {
  readonly repository: Repository;
  readonly cacheBytes: number;
  /** Worker threads that open chunks; 0 works in this thread. */
  readonly workers: number;
}): ChunkFetcher {
  const { repository, cacheBytes } = o;
  const openers = createChunkOpeners(repository.secrets, o.workers);
  const rescue = createChunkRescue({
    repository,
    openers,
    relocations: createRelocations(repository),
  });
  const opened = createOpenedChunks(cacheBytes);
  const slots = { wanted: createSlots(wantedInFlight), ahead: createSlots(aheadInFlight) };
  const stop = new AbortController();
  const { signal } = stop;
  const suspects = new Set<string>();
  const coming = new Map<string, Promise<ReadonlyMap<string, Uint8Array>>>();

  async function openRange(range: PackRange): Promise<Uint8Array> {
    try {
      const sealed = await repository.store.getRange(packName(range.packId), range, { signal });
      return (await openers.open({ ...range, bytes: sealed })).bytes;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const { bytes, lost, damaged } = await rescue(range, error, { signal });
      const [first] = lost;
      if (first !== undefined) throw damaged.get(first) ?? error;
      return bytes;
    }
  }

  async function load(
    range: PackRange,
    urgency: "wanted" | "ahead",
  ): Promise<ReadonlyMap<string, Uint8Array>> {
    await slots[urgency].take(signal);
    try {
      const bytes = await openRange(range);
      opened.add(range, bytes);
      const chunks = new Map<string, Uint8Array>();
      let from = 0;
      for (const { id, length } of range.chunks) {
        chunks.set(chunkKey(id), bytes.subarray(from, from + length));
        from += length;
      }
      return chunks;
    } finally {
      slots[urgency].give();
    }
  }

  return {
    cacheBytes,
    isKnown: (key) => opened.has(key) || coming.has(key),
    isSuspect: (key) => suspects.has(key),
    fetch: (range, urgency) => {
      const loading = load(range, urgency);
      const keys = range.chunks.map(({ id }) => chunkKey(id));
      for (const key of keys) coming.set(key, loading);
      const arrived = (): void => {
        for (const key of keys) if (coming.get(key) === loading) coming.delete(key);
      };
      const failed = (error: unknown): void => {
        arrived();
        if (!isUnreadable(error) || keys.length === 1) return;
        if (suspects.size + keys.length > suspectsMax) suspects.clear();
        for (const key of keys) suspects.add(key);
      };
      // Whoever needs a chunk of it hears of its failure; ahead of need nobody does, and it is asked for again.
      loading.then(arrived, failed);
    },
    get: (key) => {
      const known = opened.find(key);
      if (known !== undefined) return Promise.resolve(known);
      return coming.get(key)?.then((chunks) => {
        const plain = chunks.get(key);
        if (plain === undefined) throw new Error("a range lacks a chunk that it was asked for");
        return plain;
      });
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await openers.stop();
    },
  };
}
