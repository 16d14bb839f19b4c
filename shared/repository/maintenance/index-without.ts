import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { decodeIndexSegment, encodeIndexSegment } from "../index/index-segment.ts";
import {
  decodeIndexShard,
  encodeIndexShard,
  type IndexShard,
  parseShardName,
  shardIdBytes,
  shardSuffix,
} from "../index/index-shard.ts";
import type { RepositoryObjects } from "../objects.ts";

/** What became of one object of the index. */
export type IndexOutcome =
  /** It names no such pack. */
  | { readonly state: "kept" }
  /** It is to be removed; `replacedBy` has the rest of it, and is there already. */
  | { readonly state: "replaced"; readonly replacedBy: string | undefined }
  /** It does not open: no reader uses it either, but one that could after all would find packs that are gone. */
  | { readonly state: "unreadable"; readonly reason: string };

/**
 * Puts a new object of the index with all of an old one but the doomed packs, where it names any. The index is only a help: when there is no
 * space for the new object, the chunks of the old one are stored again when they turn up.
 */
export async function rewriteIndexObject(
  o: {
    readonly objects: RepositoryObjects;
    readonly isDoomed: (packId: Uint8Array) => boolean;
    /** 32 hexadecimal digits that no object has; the first 16 are the session's. */
    readonly newId: () => string;
    readonly onNoSpace: (name: string) => void;
  },
  name: string,
  options?: CallOptions,
): Promise<IndexOutcome> {
  try {
    const bytes = await o.objects.get(name, "index-segment", options);
    const rest = withoutDoomed(name, bytes, o.isDoomed);
    if (rest === "unchanged") return { state: "kept" };
    if (rest === "empty") return { state: "replaced", replacedBy: undefined };
    const replacedBy = `index/${o.newId()}${rest.suffix}`;
    try {
      await o.objects.put(replacedBy, "index-segment", rest.bytes, options);
    } catch (error) {
      if (!isFailure(error, "storage.no-space")) throw error;
      o.onNoSpace(name);
      return { state: "replaced", replacedBy: undefined };
    }
    return { state: "replaced", replacedBy };
  } catch (error) {
    // Removed meanwhile, by another collector or a merge, which put what replaces it before.
    if (isFailure(error, "object.not-found")) return { state: "kept" };
    if (!isFailure(error, "object.corrupt")) throw error;
    return { state: "unreadable", reason: error.message };
  }
}

type Rest = "unchanged" | "empty" | { readonly bytes: Uint8Array; readonly suffix: string };

function withoutDoomed(
  name: string,
  bytes: Uint8Array,
  isDoomed: (packId: Uint8Array) => boolean,
): Rest {
  const place = parseShardName(name);
  if (place === undefined) {
    const packs = decodeIndexSegment(bytes);
    const kept = packs.filter(({ packId }) => !isDoomed(packId));
    if (kept.length === packs.length) return "unchanged";
    return kept.length === 0 ? "empty" : { bytes: encodeIndexSegment(kept), suffix: "" };
  }
  const shard = decodeIndexShard(bytes, place);
  const kept = shard.packs.map(({ packId }) => !isDoomed(packId));
  if (kept.every(Boolean)) return "unchanged";
  const rest = shardWithout(shard, kept);
  if (rest.count === 0) return "empty";
  return { bytes: encodeIndexShard(rest), suffix: shardSuffix(place) };
}

function shardWithout(shard: IndexShard, kept: readonly boolean[]): IndexShard {
  const numbers = new Map<number, number>();
  for (const [number, isKept] of kept.entries()) if (isKept) numbers.set(number, numbers.size);
  const rows: number[] = [];
  for (let row = 0; row < shard.count; row += 1) {
    if (kept[shard.packNumbers[row] ?? 0] === true) rows.push(row);
  }
  const ids = new Uint8Array(rows.length * shardIdBytes);
  for (const [to, from] of rows.entries()) {
    ids.set(shard.ids.subarray(from * shardIdBytes, (from + 1) * shardIdBytes), to * shardIdBytes);
  }
  const column = (of: (row: number) => number): Uint32Array => Uint32Array.from(rows, of);
  return {
    packs: shard.packs.filter((_, number) => kept[number] === true),
    count: rows.length,
    ids,
    packNumbers: column((row) => numbers.get(shard.packNumbers[row] ?? 0) ?? 0),
    offsets: column((row) => shard.offsets[row] ?? 0),
    storedLengths: column((row) => shard.storedLengths[row] ?? 0),
  };
}
