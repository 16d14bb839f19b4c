import { strict as assert } from "node:assert";
import { isFailure } from "../../domain/failure.ts";
import type { CallOptions, ObjectHead, ObjectStore } from "../../ports/object-store.ts";
import type { RepositoryObjects } from "../objects.ts";
import {
  encodeIndexShard,
  parseShardName,
  prefixOf,
  type ShardPlace,
  shardBitsMax,
  shardIdBytes,
  shardSuffix,
} from "./index-shard.ts";
import { chunksIn, readIndexRows, type UseIndexRow } from "./read-index.ts";
import { createShardBuilder, type ShardBuilder } from "./shard-builder.ts";

/**
 * Merges the index: the segments that writers left, and the shards of earlier merges, become shards in which each chunk stands
 * once. What is new is put before what it replaces is removed: a reader of the listing in between
 * finds some chunks twice. Memory: the new segments that one merge takes (`freshChunksMax`), and a shard or two.
 */
export type MergeIndexOptions = {
  readonly store: Pick<ObjectStore, "list" | "remove">;
  readonly objects: RepositoryObjects;
  /** 32 hexadecimal digits, of the merging session. */
  readonly newId: () => string;
  readonly freshChunksMax?: number;
  /** Chunks of a shard, about. */
  readonly shardChunks?: number;
};

export type MergeReport = {
  readonly merged: number;
  readonly written: number;
  readonly chunks: number;
  /** Segments of writers that wait for the next merge. */
  readonly left: number;
  /** Could not be opened, so no writer can use them; removed, since one that is put back later might name packs that are gone. */
  readonly damaged: readonly string[];
};

const freshChunksMaxDefault = 4_000_000;
const shardChunksDefault = 500_000;
/** A merge is worth its reading and writing from this many new segments on, or when the new chunks are this share of all. */
const freshSegmentsMin = 64;
const freshShareMin = 1 / 8;
const freshChunksMin = 100_000;

/** Whether the listing of `index/` is one that a merge would make much better. */
export function isMergeDue(listing: readonly ObjectHead[]): boolean {
  const { fresh, shards } = split(listing);
  const freshChunks = sum(fresh);
  return (
    fresh.length >= freshSegmentsMin ||
    (freshChunks >= freshChunksMin && freshChunks >= sum(shards) * freshShareMin)
  );
}

/** Chunks of a damaged segment are found no more, until the index is rebuilt from the packs; that costs space, nothing else. */
export async function mergeIndex(
  o: MergeIndexOptions,
  options: CallOptions = {},
): Promise<MergeReport> {
  const listing: ObjectHead[] = [];
  for await (const head of o.store.list("index/", options)) listing.push(head);
  const { fresh, shards } = split(listing);
  const taken = takeFresh(fresh, o.freshChunksMax ?? freshChunksMaxDefault);
  const chunks = sum(taken) + sum(shards);
  const bits = shardBits(chunks, o.shardChunks ?? shardChunksDefault, shards);
  // Old shards may be wider than the new ones are to be: one group for each of the widest.
  const groupBits = Math.min(bits, ...shards.map(({ key }) => placeOf(key).bits));
  const damaged: string[] = [];
  const read: ReadRows = async (name, use) => {
    try {
      await readIndexRows(o.objects, name, use, options);
    } catch (error) {
      if (!isFailure(error, "object.corrupt")) throw error;
      damaged.push(name);
    }
  };
  const groups = await readFresh(taken, groupBits, read);
  const removed: string[] = taken.map(({ key }) => key);
  let written = 0;
  let kept = 0;
  for (let group = 0; group < 2 ** groupBits; group += 1) {
    const old = shards.filter(({ key }) => groupOf(placeOf(key), groupBits) === group);
    const news = groups.get(group);
    groups.delete(group);
    const isSplit = old.some(({ key }) => placeOf(key).bits !== bits);
    if (news === undefined && !isSplit && old.length <= 1) continue;
    const result = await writeGroup(o, { group, groupBits, bits, old, news, read }, options);
    written += result.written;
    kept += result.chunks;
    removed.push(...old.map(({ key }) => key));
  }
  if (removed.length > 0) await o.store.remove(removed, options);
  const left = fresh.length - taken.length;
  return { merged: removed.length, written, chunks: kept, left, damaged };
}

type Group = {
  readonly group: number;
  readonly groupBits: number;
  readonly bits: number;
  readonly old: readonly ObjectHead[];
  readonly news: ShardBuilder | undefined;
  readonly read: ReadRows;
};

type ReadRows = (name: string, use: UseIndexRow) => Promise<void>;

async function writeGroup(
  o: MergeIndexOptions,
  { group, groupBits, bits, old, news, read }: Group,
  options: CallOptions,
): Promise<{ readonly written: number; readonly chunks: number }> {
  const builders = new Map<number, ShardBuilder>();
  const add: UseIndexRow = (pack, id, offset, storedLength) => {
    const prefix = prefixOf(id, bits);
    let builder = builders.get(prefix);
    if (builder === undefined) {
      builder = createShardBuilder();
      builders.set(prefix, builder);
    }
    builder.add(pack, id, offset, storedLength);
  };
  for (const { key } of old) await read(key, add);
  const fresh = news?.done();
  for (let row = 0; fresh !== undefined && row < fresh.count; row += 1) {
    const pack = fresh.packs[fresh.packNumbers[row] ?? 0];
    assert(pack !== undefined);
    const id = fresh.ids.subarray(row * shardIdBytes, (row + 1) * shardIdBytes);
    add(pack, id, fresh.offsets[row] ?? 0, fresh.storedLengths[row] ?? 0);
  }
  let chunks = 0;
  for (const [prefix, builder] of builders) {
    assert(prefix >>> (bits - groupBits) === group);
    const name = `index/${o.newId()}${shardSuffix({ bits, prefix })}`;
    await o.objects.put(name, "index-segment", encodeIndexShard(builder.done()), options);
    chunks += builder.count();
  }
  return { written: builders.size, chunks };
}

/** The new segments' chunks, by the group that they belong to. */
async function readFresh(
  taken: readonly ObjectHead[],
  groupBits: number,
  read: ReadRows,
): Promise<Map<number, ShardBuilder>> {
  const groups = new Map<number, ShardBuilder>();
  for (const { key } of taken) {
    await read(key, (pack, id, offset, storedLength) => {
      const group = prefixOf(id, groupBits);
      let builder = groups.get(group);
      if (builder === undefined) {
        builder = createShardBuilder();
        groups.set(group, builder);
      }
      builder.add(pack, id, offset, storedLength);
    });
  }
  return groups;
}

/** The oldest cannot be told from the newest: as many as fit, at least one. */
function takeFresh(fresh: readonly ObjectHead[], chunksMax: number): readonly ObjectHead[] {
  const taken: ObjectHead[] = [];
  let chunks = 0;
  for (const head of fresh) {
    if (taken.length > 0 && chunks + chunksIn(head) > chunksMax) break;
    taken.push(head);
    chunks += chunksIn(head);
  }
  return taken;
}

/** Never fewer than there are: a shrinking index is not worth making anew. */
function shardBits(chunks: number, shardChunks: number, shards: readonly ObjectHead[]): number {
  const wanted = Math.ceil(Math.log2(Math.max(1, chunks / shardChunks)));
  const present = shards.map(({ key }) => placeOf(key).bits);
  return Math.min(shardBitsMax, Math.max(wanted, ...present));
}

function groupOf({ bits, prefix }: ShardPlace, groupBits: number): number {
  return prefix >>> (bits - groupBits);
}

function placeOf(name: string): ShardPlace {
  const place = parseShardName(name);
  assert(place !== undefined);
  return place;
}

function split(listing: readonly ObjectHead[]): {
  readonly fresh: readonly ObjectHead[];
  readonly shards: readonly ObjectHead[];
} {
  return {
    fresh: listing.filter(({ key }) => parseShardName(key) === undefined),
    shards: listing.filter(({ key }) => parseShardName(key) !== undefined),
  };
}

function sum(listing: readonly ObjectHead[]): number {
  return listing.reduce((total, head) => total + chunksIn(head), 0);
}
