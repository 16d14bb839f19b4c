import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type Leaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createChunkOpener } from "./chunk-opener.ts";
import { holesOf, type PackRange, planRanges } from "./restore-plan.ts";

/**
 * A disk of a recovery point as a `DiskReader`: random reads, straight from the store. Every chunk is authenticated and
 * hashed before one byte of it is given out. Leaves are kept (a few), chunks are not: a reader that goes through the disk in
 * order should read long runs.
 */
export async function openPointReader(o: {
  readonly repository: Repository;
  readonly recordKey: string;
  readonly signal?: AbortSignal;
}): Promise<DiskReader> {
  const { repository } = o;
  const options = o.signal === undefined ? {} : { signal: o.signal };
  const record = await repository.readDiskRecord(o.recordKey, options);
  const leafStore = createLeafStore(repository);
  const open = createChunkOpener(repository.secrets);
  const { leafBytes, sizeBytes } = record;
  const { chunkBytesMax } = repository.settings;
  const cache = new Map<number, Promise<Leaf>>();

  function leafAt(index: number): Promise<Leaf> | undefined {
    const ref = record.leaves.get(index);
    if (ref === undefined || ref === "hole") return undefined;
    const known = cache.get(index);
    if (known !== undefined) return known;
    // Not under the first caller's signal: others may wait for the same leaf.
    const loading = leafStore
      .read(ref, { index, ...leafRange(record, index) })
      .then(({ leaf }) => leaf);
    loading.catch(() => cache.delete(index));
    cache.set(index, loading);
    const oldest = cache.keys().next().value;
    if (cache.size > leavesMax && oldest !== undefined) cache.delete(oldest);
    return loading;
  }

  async function readRange(range: PackRange, offset: number, into: Uint8Array, signal: CallSignal) {
    const bytes = await repository.store.getRange(packName(range.packId), range, signal);
    const opened = open({ ...range, number: 0, bytes });
    let from = 0;
    for (const chunk of range.chunks) {
      const plain = opened.bytes.subarray(from, from + chunk.length);
      from += chunk.length;
      for (const diskOffset of chunk.diskOffsets) {
        const first = Math.max(diskOffset, offset);
        const last = Math.min(diskOffset + chunk.length, offset + into.length);
        if (first >= last) continue;
        into.set(plain.subarray(first - diskOffset, last - diskOffset), first - offset);
      }
    }
  }

  async function readInLeaf(index: number, offset: number, into: Uint8Array, signal: CallSignal) {
    into.fill(0);
    const leaf = await leafAt(index);
    if (leaf === undefined) return;
    const diskOffset = index * leafBytes;
    const wanted = onlyWithin(leaf, offset - diskOffset, into.length);
    const ranges = planRanges(wanted, { diskOffset, chunkBytesMax });
    await Promise.all(ranges.map((range) => readRange(range, offset, into, signal)));
  }

  return {
    sizeBytes,
    readsMax: 8,
    readBytesMax: 8 * 1024 * 1024,
    async *extents(call) {
      for (let index = 0; index < record.leaves.count; index += 1) {
        call?.signal?.throwIfAborted();
        const { offset, lengthBytes } = leafRange(record, index);
        const leaf = await leafAt(index);
        if (leaf === undefined) {
          yield { offset, length: lengthBytes, kind: "zero" };
          continue;
        }
        let next = offset;
        for (const hole of holesOf(leaf, offset)) {
          if (hole.offset > next) yield { offset: next, length: hole.offset - next, kind: "data" };
          yield { ...hole, kind: "zero" };
          next = hole.offset + hole.length;
        }
        const end = offset + lengthBytes;
        if (next < end) yield { offset: next, length: end - next, kind: "data" };
      }
    },
    async read(offset, into, call) {
      if (offset < 0 || offset + into.length > sizeBytes) {
        throw new Failure("disk.read-failed", {
          message: `read of ${into.length} bytes at ${offset}: the disk has ${sizeBytes}`,
        });
      }
      const signal = call?.signal === undefined ? {} : { signal: call.signal };
      for (let at = 0; at < into.length; ) {
        const index = Math.floor((offset + at) / leafBytes);
        const until = Math.min(into.length, (index + 1) * leafBytes - offset);
        await readInLeaf(index, offset + at, into.subarray(at, until), signal);
        at = until;
      }
    },
    async [Symbol.asyncDispose]() {
      cache.clear();
    },
  };
}

type CallSignal = { readonly signal?: AbortSignal };

const leavesMax = 64;

/** The leaf with only the entries that touch a range; for planning reads, not for measuring holes. */
function onlyWithin(leaf: Leaf, offset: number, length: number): Leaf {
  const positions: number[] = [];
  let position = 0;
  for (const entry of leafEntries(leaf)) {
    if (entry.offset < offset + length && entry.offset + entry.length > offset) {
      positions.push(position);
    }
    position += 1;
  }
  const pick = (column: Uint32Array): Uint32Array =>
    Uint32Array.from(positions, (from) => column[from] ?? 0);
  const first = positions[0] ?? 0;
  return {
    ...leaf,
    count: positions.length,
    offsets: pick(leaf.offsets),
    lengths: pick(leaf.lengths),
    packNumbers: pick(leaf.packNumbers),
    packOffsets: pick(leaf.packOffsets),
    storedLengths: pick(leaf.storedLengths),
    // Entries that touch a range are neighbours.
    ids: leaf.ids.subarray(first * 32, (first + positions.length) * 32),
  };
}
