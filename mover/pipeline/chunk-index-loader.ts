import type { Logger } from "@holdfast/shared/ports/logger";
import { type ChunkIndex, createChunkIndex } from "@holdfast/shared/repository/index/chunk-index";
import { decodeIndexSegment } from "@holdfast/shared/repository/index/index-segment";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isUnreadable } from "./prepare-leaf.ts";

const segmentsInFlight = 8;

/**
 * Loads the repository's index, to be shared by all transfers of a mover. A segment that cannot be read is logged and left out:
 * its chunks are stored again when they turn up.
 */
export async function loadChunkIndex(
  repository: Repository,
  o: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<ChunkIndex> {
  const index = createChunkIndex();
  const options = { signal: o.signal };
  const load = async (key: string): Promise<void> => {
    try {
      const bytes = await repository.objects.get(key, "index-segment", options);
      for (const pack of decodeIndexSegment(bytes)) index.add(pack, pack.records);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      o.logger.warn("index segment unreadable", { key, reason: error.message });
    }
  };
  let batch: string[] = [];
  for await (const { key } of repository.store.list("index/", options)) {
    batch.push(key);
    if (batch.length < segmentsInFlight) continue;
    await Promise.all(batch.map(load));
    batch = [];
  }
  await Promise.all(batch.map(load));
  return index;
}
