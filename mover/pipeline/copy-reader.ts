import type { Extent } from "@holdfast/shared/domain/extent";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type Leaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { sameBytes } from "@holdfast/shared/repository/format/bytes";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkFetcher } from "./chunk-fetcher.ts";
import { openPointReader, type PointReader } from "./point-reader.ts";
import { isUnreadable } from "./prepare-leaf.ts";

/**
 * A disk of a recovery point, to be copied to another repository. With the record of the same disk in a point that was copied before, what has the
 * same chunks at the same places is `unchanged`: leaves of equal digests are not even loaded.
 */
export async function openCopyReader(o: {
  readonly repository: Repository;
  readonly recordKey: string;
  readonly baseRecordKey: string | undefined;
  readonly fetcher: ChunkFetcher;
  readonly signal: AbortSignal;
}): Promise<DiskReader> {
  const { repository, signal } = o;
  const reader = await openPointReader(o);
  const base = await readBase(o);
  if (base === undefined) return reader;
  const record = await repository.readDiskRecord(o.recordKey, { signal });
  if (record.leafBytes !== base.leafBytes) return reader;
  return { ...reader, extents: () => changesSince({ repository, reader, record, base, signal }) };
}

/** Undefined also when it is damaged or was removed since: then everything is read. */
async function readBase({
  repository,
  baseRecordKey,
  signal,
}: {
  readonly repository: Repository;
  readonly baseRecordKey: string | undefined;
  readonly signal: AbortSignal;
}): Promise<DiskRecord | undefined> {
  if (baseRecordKey === undefined) return undefined;
  try {
    return await repository.readDiskRecord(baseRecordKey, { signal });
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return undefined;
  }
}

type Compared = {
  readonly repository: Repository;
  readonly reader: PointReader;
  readonly record: DiskRecord;
  readonly base: DiskRecord;
  readonly signal: AbortSignal;
};

async function* changesSince(o: Compared): AsyncGenerator<Extent> {
  const { record, base, reader, signal } = o;
  const leafStore = createLeafStore(o.repository);

  const load = async (disk: DiskRecord, index: number): Promise<Leaf | undefined> => {
    const ref = disk.leaves.get(index);
    if (ref === undefined || ref === "hole") return undefined;
    const place = { index, ...leafRange(disk, index) };
    return (await leafStore.read(ref, place, { signal })).leaf;
  };

  for (let index = 0; index < record.leaves.count; index += 1) {
    signal.throwIfAborted();
    const { offset, lengthBytes } = leafRange(record, index);
    const whole = (kind: Extent["kind"]): Extent => ({ offset, length: lengthBytes, kind });
    const ref = record.leaves.get(index);
    const before = index < base.leaves.count ? base.leaves.get(index) : undefined;
    const hasSameRange = before !== undefined && leafRange(base, index).lengthBytes === lengthBytes;
    if (ref === "hole") {
      yield whole(hasSameRange && before === "hole" ? "unchanged" : "zero");
    } else if (ref === undefined || !hasSameRange || before === "hole") {
      yield* runsOf(reader, offset, lengthBytes, signal);
    } else if (sameBytes(ref.digest, before.digest)) {
      yield whole("unchanged");
    } else {
      const leaf = await load(record, index);
      const old = await loadBase(() => load(base, index));
      if (leaf === undefined || old === undefined) {
        yield* runsOf(reader, offset, lengthBytes, signal);
      } else {
        yield* changedEntries(leaf, old, offset);
      }
    }
  }
}

async function loadBase(load: () => Promise<Leaf | undefined>): Promise<Leaf | undefined> {
  try {
    return await load();
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return undefined;
  }
}

async function* runsOf(
  reader: PointReader,
  offset: number,
  length: number,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  for (let at = offset; at < offset + length; ) {
    for (const run of await reader.runs(at, offset + length - at, { signal })) {
      yield { offset: run.offset, length: run.length, kind: run.isHole ? "zero" : "data" };
      at = run.offset + run.length;
    }
  }
}

/** What no entry covers reads as zeros, whatever it was before. */
function* changedEntries(leaf: Leaf, before: Leaf, diskOffset: number): Generator<Extent> {
  const old = leafEntries(before);
  let candidate = old.next();
  let at = 0;
  for (const { offset, length, id } of leafEntries(leaf)) {
    if (offset > at) yield { offset: diskOffset + at, length: offset - at, kind: "zero" };
    while (candidate.done !== true && candidate.value.offset < offset) candidate = old.next();
    const isSame =
      candidate.done !== true &&
      candidate.value.offset === offset &&
      candidate.value.length === length &&
      sameBytes(candidate.value.id, id);
    yield { offset: diskOffset + offset, length, kind: isSame ? "unchanged" : "data" };
    at = offset + length;
  }
  if (at < leaf.lengthBytes) {
    yield { offset: diskOffset + at, length: leaf.lengthBytes - at, kind: "zero" };
  }
}
