import type { Logger } from "@holdfast/shared/ports/logger";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import type { ChunkIndex } from "@holdfast/shared/repository/index/chunk-index";
import type { IndexPack } from "@holdfast/shared/repository/index/pack-table";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isUnreadable } from "./prepare-leaf.ts";
import { readPackEnds } from "./verify-packs.ts";

const loadsMax = 8;
/** A pack that was loaded is not asked for again until this many others were: by then its chunks may be forgotten. */
const rememberedMax = 1000;

/**
 * Makes a sparse index know the chunks around the hooks that were found: reads the footers of their packs. What is not there in time, or
 * cannot be read, is stored once more.
 */
export function createNeighbourLoader(o: {
  readonly repository: Repository;
  readonly index: ChunkIndex;
  /** Whether the session may refer to that record. */
  readonly isUsable: (packId: Uint8Array, offset: number) => boolean;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): { readonly prefetch: () => void } {
  const { repository, index, signal } = o;
  const loaded = new Set<string>();
  const waiting: IndexPack[] = [];
  let loading = 0;

  async function load(pack: IndexPack): Promise<void> {
    const head = await repository.store.head(packName(pack.packId), { signal });
    if (head === undefined) return;
    const { packId } = pack;
    const { sizeBytes } = head;
    const { records } = await readPackEnds(repository, { packId, sizeBytes }, signal);
    // A kind of its own for what must not be used: the index takes chunks only.
    const kinds = Uint8Array.from(records.kinds, (kind, row) =>
      o.isUsable(packId, records.offsets[row] ?? 0) ? kind : 0xff,
    );
    index.addNeighbours(pack, { ...records, kinds });
  }

  function start(): void {
    while (loading < loadsMax) {
      const pack = waiting.shift();
      if (pack === undefined || signal.aborted) return;
      loading += 1;
      load(pack)
        .catch((error: unknown) => {
          if (signal.aborted) return;
          const reason = error instanceof Error ? error.message : String(error);
          const key = packName(pack.packId);
          if (isUnreadable(error)) o.logger.warn("pack footer unreadable", { key, reason });
          else
            o.logger.warn("pack footer not read: its chunks may be stored again", { key, reason });
        })
        .finally(() => {
          loading -= 1;
          start();
        });
    }
  }

  return {
    prefetch: () => {
      for (const pack of index.wanted()) {
        const key = toHex(pack.packId);
        if (loaded.has(key)) continue;
        loaded.add(key);
        waiting.push(pack);
        const [oldest] = loaded;
        if (loaded.size > rememberedMax && oldest !== undefined) loaded.delete(oldest);
      }
      start();
    },
  };
}
