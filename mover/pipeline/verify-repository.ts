import { availableParallelism } from "node:os";
import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type Leaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore, type LeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import type { LeafRef } from "@holdfast/shared/repository/extent-map/leaf-table";
import { corrupt, toHex } from "@holdfast/shared/repository/format/bytes";
import { decodeIndexSegment } from "@holdfast/shared/repository/index/index-segment";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { DiskOfPoint, PointSummary, Repository } from "@holdfast/shared/repository/repository";
import { type ChunkOpeners, createChunkOpeners } from "./chunk-openers.ts";
import { createDamageReport, type DamageReport } from "./damage-report.ts";
import { createFingerprintSet, type FingerprintSet, fingerprint } from "./fingerprint-set.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { planRanges } from "./restore-plan.ts";
import { type ChunkChecks, createChunkChecks } from "./verify-chunks.ts";

/**
 * Reads what recovery points need, as a restore would, and says which points, disks and byte ranges cannot be restored.
 *
 * What always holds: nothing is written; roots, metadata, disk records and leaves are all read, chunks to the share that was
 * asked for, each once however many points need it; what is damaged or missing is reported and the rest still checked, while
 * a store that does not answer ends the run with its failure: that is no damage. Memory does not grow with disks' sizes
 * beyond 12 to 32 bytes for each chunk and leaf met, up to a limit. A root that is gone cannot be seen from here.
 */
export type VerifyOptions = {
  readonly repository: Repository;
  /** Share of the chunks that is read, above 0 to 1. */
  readonly share: number;
  /** This point only; index segments are then left out. */
  readonly pointId?: string;
  /** Bytes of all points' disks. */
  readonly onProgress: (now: { readonly bytesDone: number; readonly bytesTotal: number }) => void;
  readonly signal: AbortSignal;
  /** Worker threads; 0 works in this thread. Default: one a core, at most 8. */
  readonly workers?: number;
  readonly logger: Logger;
};

const workersMax = 8;
/** Leaves looked at together: their chunks are planned and read as one batch. */
const leavesInFlight = 6;
/** Clean leaves to be skipped when another point shares them: of 128 MiB each, 256 TiB of different contents. */
const cleanLeavesMax = 2_000_000;

/**
 * Fails with `not-found` when there is no such point, with the store's failures, `cancelled` when stopped. Damage is no failure
 * but in the report.
 */
export async function verifyRepository(o: VerifyOptions): Promise<VerifyReport> {
  const { repository } = o;
  const stop = new AbortController();
  const signal = AbortSignal.any([o.signal, stop.signal]);
  const startedMs = repository.clock.now();
  const workers = o.workers ?? Math.min(availableParallelism(), workersMax);
  let openers: ChunkOpeners | undefined;
  try {
    signal.throwIfAborted();
    const report = createDamageReport();
    const points = await listPoints({ ...o, signal }, report);
    openers = createChunkOpeners(repository.secrets, workers);
    const chunks = createChunkChecks({
      repository,
      openers,
      share: o.share,
      onBadObject: (object, failure) => report.object(object, failure.message),
      onUnsteady: (object, failure) =>
        report.harmless(
          object,
          `read wrong once and right again, so suspect this machine's memory or the way to the storage: ${failure.message}`,
        ),
      signal,
    });
    await verifyPoints({ ...o, signal, report, chunks, points });
    if (o.pointId === undefined) await verifyIndex(repository, report, signal);
    const seconds = Math.max(0, repository.clock.now() - startedMs) / 1000;
    const disks = points.reduce((sum, point) => sum + point.disks.length, 0);
    const counts = { points: points.length, disks, ...chunks.counts(), seconds };
    const found = report.found();
    o.logger.info("repository verified", {
      ...counts,
      share: o.share,
      damagedPoints: found.damagedPoints.length,
      damagedObjects: found.damagedObjects.length,
    });
    return { share: o.share, ...counts, ...found };
  } catch (error) {
    stop.abort(error);
    if (o.signal.aborted) throw asFailure(o.signal.reason, "cancelled", "verification stopped");
    throw error;
  } finally {
    stop.abort();
    await openers?.stop();
  }
}

async function listPoints(
  { repository, pointId, signal }: VerifyOptions,
  report: DamageReport,
): Promise<readonly PointSummary[]> {
  const points: PointSummary[] = [];
  let isUnreadableRoot = false;
  const onUnreadable = ({ key, failure }: { key: string; failure: Failure }): void => {
    // What it holds is unknown; its name tells whose it is.
    const name = key.slice(key.lastIndexOf("/") + 1);
    if (pointId !== undefined && !name.startsWith(`${pointId}-`)) return;
    isUnreadableRoot = true;
    report.object(key, failure.message);
  };
  for await (const point of repository.listPoints({ signal, onUnreadable })) {
    if (pointId === undefined || point.pointId === pointId) points.push(point);
  }
  if (pointId !== undefined && points.length === 0 && !isUnreadableRoot) {
    throw new Failure("not-found", {
      message: `${repository.store.url} has no recovery point ${JSON.stringify(pointId)}; \`holdfast image points\` lists them`,
    });
  }
  return points;
}

type Verifying = VerifyOptions & {
  readonly report: DamageReport;
  readonly chunks: ChunkChecks;
  readonly points: readonly PointSummary[];
};

async function verifyPoints(o: Verifying): Promise<void> {
  const { repository, report, signal } = o;
  const disks = o.points.flatMap((point) => point.disks);
  const bytesTotal = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const leafStore = createLeafStore(repository);
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

type VerifyingDisk = Verifying & {
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
      continue;
    }
    let isClean = true;
    for (const entry of leafEntries(one.leaf)) {
      if (!chunks.isBad(entry)) continue;
      isClean = false;
      const range = { offset: place.offset + entry.offset, length: entry.length };
      const where = `chunk at ${entry.packOffset} of ${packName(entry.pack.packId)}`;
      report.range(point, disk.key, range, `${where} is damaged or missing`);
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

/** Only writers use the index: without a segment they store again what it listed. */
async function verifyIndex(
  repository: Repository,
  report: DamageReport,
  signal: AbortSignal,
): Promise<void> {
  for await (const { key } of repository.store.list("index/", { signal })) {
    try {
      decodeIndexSegment(await repository.objects.get(key, "index-segment", { signal }));
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      report.harmless(key, `no restore needs the index: ${error.message}`);
    }
  }
}
