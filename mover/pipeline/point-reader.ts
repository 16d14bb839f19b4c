import { strict as assert } from "node:assert";
import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { entryId, type Leaf } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { corrupt } from "@holdfast/shared/repository/format/bytes";
import type { Repository } from "@holdfast/shared/repository/repository";
import { type ChunkFetcher, createChunkFetcher } from "./chunk-fetcher.ts";
import { chunkKey } from "./opened-chunks.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { createReadAhead } from "./read-ahead.ts";
import { holesOf, type PackRange, planRanges } from "./restore-plan.ts";

/** A run of a disk's bytes: data, or a hole that reads as zeros. */
export type DiskRun = {
  readonly offset: number;
  readonly length: number;
  readonly isHole: boolean;
};

export type PointReader = DiskReader & {
  /**
   * What lies from `offset` on, without gaps, neighbours of one kind joined: all `length` bytes, or at least one run when that
   * would need more than a few leaves.
   */
  readonly runs: (
    offset: number,
    length: number,
    options?: { readonly signal?: AbortSignal },
  ) => Promise<readonly DiskRun[]>;
};

/**
 * A disk of a recovery point as a `DiskReader`: random reads, straight from the store. Every chunk is authenticated and
 * hashed before one byte of it is given out. Who reads in order finds what comes next there already.
 *
 * Reads fail with `object.corrupt` or `object.not-found` where the repository is damaged, and only there: chunks that were
 * read together with a damaged one are read again alone.
 */
export async function openPointReader(o: {
  readonly repository: Repository;
  readonly recordKey: string;
  /** Shared by the disks of a point; the one who made it disposes of it. Default: a small one of its own, in this thread. */
  readonly fetcher?: ChunkFetcher;
  readonly signal?: AbortSignal;
}): Promise<PointReader> {
  const { repository } = o;
  const options = o.signal === undefined ? {} : { signal: o.signal };
  const record = await repository.readDiskRecord(o.recordKey, options);
  const own = o.fetcher === undefined;
  const fetcher =
    o.fetcher ?? createChunkFetcher({ repository, cacheBytes: ownCacheBytes, workers: 0 });
  const leafStore = createLeafStore(repository);
  const { leafBytes, sizeBytes } = record;
  const { chunkBytesMax } = repository.settings;
  const leaves = new Map<number, Promise<Leaf>>();
  const readAhead = createReadAhead(sizeBytes, {
    windowBytesMin: 1024 * 1024,
    windowBytesMax: Math.min(fetcher.cacheBytes / 8, 32 * 1024 * 1024),
  });

  const isHole = (index: number): boolean => {
    const ref = record.leaves.get(index);
    return ref === undefined || ref === "hole";
  };

  function leafAt(index: number): Promise<Leaf> | undefined {
    const ref = record.leaves.get(index);
    if (ref === undefined || ref === "hole") return undefined;
    const known = leaves.get(index);
    if (known !== undefined) {
      leaves.delete(index);
      leaves.set(index, known);
      return known;
    }
    // Not under the first caller's signal: others may wait for the same leaf.
    const loading = leafStore
      .read(ref, { index, ...leafRange(record, index) })
      .then(({ leaf }) => leaf);
    loading.catch(() => leaves.delete(index));
    leaves.set(index, loading);
    const oldest = leaves.keys().next().value;
    if (leaves.size > leavesMax && oldest !== undefined) leaves.delete(oldest);
    return loading;
  }

  /** Asks for what is neither here nor on its way. */
  function request(leaf: Leaf, positions: Positions, urgency: "wanted" | "ahead"): void {
    const plan = (of: Positions, isWanted: (key: string) => boolean): readonly PackRange[] =>
      planRanges(slice(leaf, of), {
        diskOffset: leaf.index * leafBytes,
        chunkBytesMax,
        isWanted: ({ id }) => isWanted(chunkKey(id)),
      });
    const ranges = [...plan(positions, (key) => !fetcher.isKnown(key) && !fetcher.isSuspect(key))];
    for (let position = positions.first; position < positions.last; position += 1) {
      if (!fetcher.isSuspect(keyOf(leaf, position))) continue;
      ranges.push(...plan({ first: position, last: position + 1 }, (key) => !fetcher.isKnown(key)));
    }
    for (const range of ranges) fetcher.fetch(range, urgency);
  }

  async function chunkAt(leaf: Leaf, position: number): Promise<Uint8Array> {
    const key = keyOf(leaf, position);
    try {
      const together = fetcher.get(key);
      if (together !== undefined) return await together;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
    // Forgotten already, or read together with a damaged one: now alone.
    if (!fetcher.isKnown(key)) request(leaf, { first: position, last: position + 1 }, "wanted");
    const alone = fetcher.get(key);
    assert(alone !== undefined);
    return await alone;
  }

  async function readInLeaf(index: number, offset: number, into: Uint8Array): Promise<void> {
    const leaf = await leafAt(index);
    if (leaf === undefined) {
      into.fill(0);
      return;
    }
    const from = offset - index * leafBytes;
    const positions = touching(leaf, from, into.length);
    request(leaf, positions, "wanted");
    const copying: Promise<void>[] = [];
    let filled = 0;
    for (let position = positions.first; position < positions.last; position += 1) {
      const begin = Math.max((leaf.offsets[position] ?? 0) - from, 0);
      const skipped = Math.max(from - (leaf.offsets[position] ?? 0), 0);
      const length = Math.min((leaf.lengths[position] ?? 0) - skipped, into.length - begin);
      into.fill(0, filled, begin);
      filled = begin + length;
      copying.push(
        chunkAt(leaf, position).then((plain) => {
          if (plain.length !== leaf.lengths[position]) {
            throw corrupt(`leaf ${index} says another length of a chunk than it has`);
          }
          into.set(plain.subarray(skipped, skipped + length), begin);
        }),
      );
    }
    into.fill(0, filled);
    await allOrFirst(copying);
  }

  /** Nobody waits for it: what fails is found again, and told, when it is really read. */
  async function lookAhead(offset: number, length: number): Promise<void> {
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / leafBytes);
      const until = Math.min(offset + length, (index + 1) * leafBytes);
      const leaf = await leafAt(index);
      if (leaf !== undefined) {
        request(leaf, touching(leaf, at - index * leafBytes, until - at), "ahead");
      }
      at = until;
    }
  }

  function check(offset: number, length: number): void {
    if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= sizeBytes) return;
    throw new Failure("disk.read-failed", {
      message: `read of ${length} bytes at ${offset}: the disk has ${sizeBytes}`,
    });
  }

  async function runs(
    offset: number,
    length: number,
    call?: { readonly signal?: AbortSignal },
  ): Promise<readonly DiskRun[]> {
    check(offset, length);
    const found: DiskRun[] = [];
    let loaded = 0;
    for (let at = offset; at < offset + length; ) {
      call?.signal?.throwIfAborted();
      const index = Math.floor(at / leafBytes);
      const until = Math.min(offset + length, (index + 1) * leafBytes);
      if (isHole(index)) join(found, { offset: at, length: until - at, isHole: true });
      else {
        if (loaded >= leavesPerRuns) break;
        loaded += 1;
        const leaf = await leafAt(index);
        assert(leaf !== undefined);
        for (const run of runsOfLeaf(leaf, index * leafBytes, { from: at, until })) {
          join(found, run);
        }
      }
      at = until;
    }
    return found;
  }

  return {
    sizeBytes,
    readsMax: 8,
    readBytesMax: 8 * 1024 * 1024,
    async *extents(call) {
      for (let offset = 0; offset < sizeBytes; ) {
        call?.signal?.throwIfAborted();
        const length = Math.min(leafBytes, sizeBytes - offset);
        for (const run of await runs(offset, length, call)) {
          yield { offset: run.offset, length: run.length, kind: run.isHole ? "zero" : "data" };
          offset = run.offset + run.length;
        }
      }
    },
    runs,
    async read(offset, into, call) {
      check(offset, into.length);
      call?.signal?.throwIfAborted();
      const parts: Promise<void>[] = [];
      for (let at = 0; at < into.length; ) {
        const index = Math.floor((offset + at) / leafBytes);
        const until = Math.min(into.length, (index + 1) * leafBytes - offset);
        parts.push(readInLeaf(index, offset + at, into.subarray(at, until)));
        at = until;
      }
      const next = readAhead.observe({ offset, length: into.length });
      if (next !== undefined) lookAhead(next.offset, next.length).catch(() => undefined);
      await allOrFirst(parts);
      call?.signal?.throwIfAborted();
    },
    async [Symbol.asyncDispose]() {
      leaves.clear();
      if (own) await fetcher[Symbol.asyncDispose]();
    },
  };
}

const ownCacheBytes = 16 * 1024 * 1024;
const leavesMax = 64;
/** Leaves that one question for runs loads at most. */
const leavesPerRuns = 8;

/** Waits for all, so that nobody writes to the caller's memory afterwards; then fails with the first failure. */
async function allOrFirst(works: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(works)) {
    if (result.status === "rejected") throw result.reason;
  }
}

type Positions = { readonly first: number; readonly last: number };

/** Entries that touch a range are neighbours. Offsets within the leaf. */
function touching(leaf: Leaf, offset: number, length: number): Positions {
  const end = (position: number): number =>
    (leaf.offsets[position] ?? 0) + (leaf.lengths[position] ?? 0);
  let low = 0;
  let high = leaf.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (end(middle) > offset) high = middle;
    else low = middle + 1;
  }
  let last = low;
  while (last < leaf.count && (leaf.offsets[last] ?? 0) < offset + length) last += 1;
  return { first: low, last };
}

/** The leaf with only some of its entries; for planning reads, not for measuring holes. */
function slice(leaf: Leaf, { first, last }: Positions): Leaf {
  return {
    ...leaf,
    count: last - first,
    offsets: leaf.offsets.subarray(first, last),
    lengths: leaf.lengths.subarray(first, last),
    packNumbers: leaf.packNumbers.subarray(first, last),
    packOffsets: leaf.packOffsets.subarray(first, last),
    storedLengths: leaf.storedLengths.subarray(first, last),
    ids: leaf.ids.subarray(first * 32, last * 32),
  };
}

const keyOf = (leaf: Leaf, position: number): string => chunkKey(entryId(leaf, position));

function* runsOfLeaf(
  leaf: Leaf,
  diskOffset: number,
  { from, until }: { readonly from: number; readonly until: number },
): Generator<DiskRun> {
  let at = from;
  for (const hole of holesOf(leaf, diskOffset)) {
    const begin = Math.max(hole.offset, from);
    const end = Math.min(hole.offset + hole.length, until);
    if (begin >= end) continue;
    if (begin > at) yield { offset: at, length: begin - at, isHole: false };
    yield { offset: begin, length: end - begin, isHole: true };
    at = end;
  }
  if (at < until) yield { offset: at, length: until - at, isHole: false };
}

function join(runs: DiskRun[], run: DiskRun): void {
  const last = runs.at(-1);
  if (last?.isHole === run.isHole)
    runs[runs.length - 1] = { ...last, length: last.length + run.length };
  else runs.push(run);
}
