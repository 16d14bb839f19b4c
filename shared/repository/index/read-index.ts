import type { CallOptions } from "../../ports/object-store.ts";
import { idBytes } from "../chunk/keyed-hash.ts";
import type { RepositoryObjects } from "../objects.ts";
import { decodeIndexSegment } from "./index-segment.ts";
import { decodeIndexShard, parseShardName, shardIdBytes } from "./index-shard.ts";
import type { IndexPack } from "./pack-table.ts";

export type UseIndexRow = (
  pack: IndexPack,
  id: Uint8Array,
  offset: number,
  storedLength: number,
) => void;

/** Bytes of one chunk in a segment of a writer, at most; in a merged one a little more than half of it. */
const bytesPerChunk = 44;
const bytesPerMergedChunk = 28;

/** About how many chunks an object of the index has. */
export function chunksIn(o: { readonly key: string; readonly sizeBytes: number }): number {
  const bytes = parseShardName(o.key) === undefined ? bytesPerChunk : bytesPerMergedChunk;
  return Math.ceil(o.sizeBytes / bytes);
}

/** Gives out all rows of one object of the index, a writer's segment or a merged shard. Fails with `object.not-found`, `object.corrupt`. */
export async function readIndexRows(
  objects: RepositoryObjects,
  name: string,
  use: UseIndexRow,
  options?: CallOptions,
): Promise<void> {
  const bytes = await objects.get(name, "index-segment", options);
  const place = parseShardName(name);
  if (place === undefined) {
    for (const { records, ...pack } of decodeIndexSegment(bytes)) {
      for (let row = 0; row < records.count; row += 1) {
        const id = records.ids.subarray(row * idBytes, (row + 1) * idBytes);
        use(pack, id, records.offsets[row] ?? 0, records.storedLengths[row] ?? 0);
      }
    }
    return;
  }
  const shard = decodeIndexShard(bytes, place);
  for (let row = 0; row < shard.count; row += 1) {
    const pack = shard.packs[shard.packNumbers[row] ?? 0];
    if (pack === undefined) continue;
    const id = shard.ids.subarray(row * shardIdBytes, (row + 1) * shardIdBytes);
    use(pack, id, shard.offsets[row] ?? 0, shard.storedLengths[row] ?? 0);
  }
}
