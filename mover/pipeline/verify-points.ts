import type { Failure } from "@holdfast/shared/domain/failure";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type Leaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore, type LeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import type { LeafRef } from "@holdfast/shared/repository/extent-map/leaf-table";
import { corrupt, toHex } from "@holdfast/shared/repository/format/bytes";
import { packName, type RecordKind } from "@holdfast/shared/repository/pack/pack";
import type { Relocations } from "@holdfast/shared/repository/pack/relocations";
import type { DiskOfPoint, PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { DamageReport } from "./damage-report.ts";
import { createFingerprintSet, type FingerprintSet, fingerprint } from "./fingerprint-set.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { planRanges } from "./restore-plan.ts";
import type { ChunkChecks } from "./verify-chunks.ts";

/** Leaves looked at together: their chunks are planned and read as one batch. */
const leavesInFlight = 6;
/** Clean leaves to be skipped when another point shares them: of 128 MiB each, 256 TiB of different contents. */
const cleanLeavesMax = 2_000_000;

export type VerifyingPoints = {
  readonly repository: Repository;
  readonly report: DamageReport;
  readonly chunks: ChunkChecks;
  readonly relocations: Relocations;
  readonly points: readonly PointSummary[];
  /** Hears of each damaged place that a point needs; repair looks for another copy of it. */
  readonly onBad?: (bad: BadRecord) => void;
  /** Bytes of all points' disks. */
  readonly onProgress: (now: { readonly bytesDone: number; readonly bytesTotal: number }) => void;
  readonly signal: AbortSignal;
};

/** A chunk or a leaf's record that no place has, as what needs it names it. */
export type BadRecord = {
  readonly kind: RecordKind;
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly storedLength: number;
  readonly length: number;
  readonly id: Uint8Array;
};

/**
 * Looks at what each point needs: metadata, disk records and leaves are read, chunks where `chunks` has them due. What is damaged is told to the
 * report, point by point, and the rest still looked at.
 */
export async function verifyPoints(o: VerifyingPoints): Promise<void> {
  const { repository, report, signal } = o;
  const disks = o.points.flatMap((point) => point.disks);
  const bytesTotal = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const leafStore = createLeafStore({ ...repository, relocations: o.relocations });
  const cleanLeaves = createFingerprintSet(cleanLeavesMax);
  let bytesDone = 0;
  for (const point of o.points) {
    try {
      await repository.readPoint(point.rootKey, { signal });
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      report.metadata(point, error.message);
      report.object(point.metadataKey, error.message);
    }
    for (const disk of point.disks) {
      const onBytes = (bytes: number): void =>
        o.onProgress({ bytesDone: bytesDone + bytes, bytesTotal });
      await verifyDisk({ ...o, point, disk, leafStore, cleanLeaves, onBytes });
      bytesDone += disk.sizeBytes;
    }
  }
  o.onProgress({ bytesDone, bytesTotal });
}

type VerifyingDisk = VerifyingPoints & {
  readonly point: PointSummary;
  readonly disk: DiskOfPoint;
  readonly leafStore: LeafStore;
  readonly cleanLeaves: FingerprintSet;
  readonly onBytes: (bytesDone: number) => void;
};

async function verifyDisk(o: VerifyingDisk): Promise<void> {
  const { point, disk, report, signal } = o;
  let record: DiskRecord;
  try {
    record = await o.repository.readDiskRecord(disk.recordKey, { signal });
    checkRecord(record, disk);
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    report.object(disk.recordKey, error.message);
    report.range(point, disk.key, { offset: 0, length: disk.sizeBytes }, error.message);
    return;
  }
  let batch: LeafInBatch[] = [];
  for (let index = 0; index < record.leaves.count; index += 1) {
    const ref = record.leaves.get(index);
    if (ref !== undefined && ref !== "hole" && !o.cleanLeaves.has(leafMark(ref))) {
      batch.push({ index, ref, ...leafRange(record, index) });
    }
    if (batch.length < leavesInFlight) continue;
    await verifyLeaves(o, batch);
    batch = [];
    o.onBytes(Math.min(disk.sizeBytes, (index + 1) * record.leafBytes));
  }
  await verifyLeaves(o, batch);
}

/** The root names what the disk is; a record that opens but is another disk's or point's is as bad as none. */
function checkRecord(record: DiskRecord, disk: DiskOfPoint): void {
  if (toHex(record.digest) !== disk.digest || record.sizeBytes !== disk.sizeBytes) {
    throw corrupt(`${disk.recordKey} is not the record that the recovery point was written with`);
  }
}

type LeafInBatch = {
  readonly index: number;
  readonly ref: LeafRef;
  readonly offset: number;
  readonly lengthBytes: number;
};

/** First all chunks of the batch that are due are read; then it is known which entries of its leaves are bad. */
async function verifyLeaves(o: VerifyingDisk, batch: readonly LeafInBatch[]): Promise<void> {
  const { point, disk, report, chunks, signal } = o;
  const { chunkBytesMax } = o.repository.settings;
  const read = async (place: LeafInBatch): Promise<{ leaf: Leaf } | { failure: Failure }> => {
    try {
      const { leaf } = await o.leafStore.read(place.ref, place, { signal });
      const isWanted = chunks.isDue;
      const ranges = planRanges(leaf, { diskOffset: place.offset, chunkBytesMax, isWanted });
      await Promise.all(ranges.map(chunks.check));
      return { leaf };
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return { failure: error };
    }
  };
  const found = await Promise.all(batch.map(async (place) => ({ place, ...(await read(place)) })));
  for (const { place, ...one } of found) {
    if ("failure" in one) {
      const { message } = one.failure;
      report.object(packName(place.ref.packId), message);
      const range = { offset: place.offset, length: place.lengthBytes };
      report.range(point, disk.key, range, message);
      for (const bad of recordsOf(place.ref)) o.onBad?.(bad);
      continue;
    }
    let isClean = true;
    for (const entry of leafEntries(one.leaf)) {
      if (!chunks.isBad(entry)) continue;
      isClean = false;
      const range = { offset: place.offset + entry.offset, length: entry.length };
      const { pack, packOffset } = entry;
      const where = `chunk at ${packOffset} of ${packName(pack.packId)}`;
      report.range(point, disk.key, range, `${where} is damaged or missing`);
      report.object(packName(pack.packId), chunks.reasonOf(pack.packId) ?? `${where} is damaged`);
      o.onBad?.({ ...entry, ...pack, kind: "chunk", offset: packOffset });
    }
    if (isClean) o.cleanLeaves.add(leafMark(place.ref));
  }
}

/** Where the leaf lies and all that its reference says of it; its digest says where on a disk it belongs. */
function leafMark(ref: LeafRef): ReturnType<typeof fingerprint> {
  const id = Uint8Array.from(
    { length: 12 },
    (_, at) => (ref.digest[at] ?? 0) ^ (ref.summaryId[at] ?? 0) ^ (ref.entriesId[at] ?? 0),
  );
  const storedLength = ref.summaryStored + Math.imul(ref.entriesStored, 0x10001);
  const length = ref.summaryRaw + Math.imul(ref.entriesRaw, 0x10001);
  return fingerprint({
    id,
    packId: ref.packId,
    epoch: ref.epoch,
    offset: ref.offset,
    storedLength,
    length,
  });
}

/** A leaf is two records, side by side. */
function recordsOf(ref: LeafRef): readonly BadRecord[] {
  const { packId, epoch, offset } = ref;
  const summary = {
    kind: "leaf-summary" as const,
    offset,
    storedLength: ref.summaryStored,
    length: ref.summaryRaw,
    id: ref.summaryId,
  };
  const entries = {
    kind: "leaf-entries" as const,
    offset: offset + ref.summaryStored,
    storedLength: ref.entriesStored,
    length: ref.entriesRaw,
    id: ref.entriesId,
  };
  return [
    { packId, epoch, ...summary },
    { packId, epoch, ...entries },
  ];
}
