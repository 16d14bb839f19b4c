import { isFailure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import type { ChunkFetcher } from "./chunk-fetcher.ts";
import type { SessionIndex } from "./chunk-index-loader.ts";
import { openCopyReader } from "./copy-reader.ts";
import { type TransferResult, transferDisk } from "./transfer-disk.ts";

/** A point that was copied before, as it is in both repositories: what did not change since is taken over from it. */
export type CopyBase = { readonly source: PointSummary; readonly target: PointSummary };

export type CopiedBytes = {
  readonly bytesRead: number;
  readonly bytesNew: number;
  readonly bytesStored: number;
};

export type CopyPointOptions = {
  readonly source: Repository;
  readonly target: Repository;
  /** In the target; the copy's commit ends it. */
  readonly session: Session;
  readonly fetcher: ChunkFetcher;
  readonly index: SessionIndex;
  readonly point: PointSummary;
  readonly base: CopyBase | undefined;
  readonly throttled: (reader: DiskReader) => DiskReader;
  /** Of the point's logical bytes. */
  readonly onProgress: (bytesDone: number) => void;
  /** Worker threads of the transfer; 0 works in this thread. */
  readonly workers?: number;
  readonly signal: AbortSignal;
  readonly logger: Logger;
};

/** Of what a copied point shows as unchanged, this share is read and compared all the same. */
const sampleShare = 0.01;

/**
 * Reads a point out of one repository, with everything authenticated, and writes it to another under that one's keys: same id, VM, times and metadata.
 * What is stored there already is not stored again. Fails with `object.corrupt` or `object.not-found` where the source is damaged.
 */
export async function copyPoint(o: CopyPointOptions): Promise<CopiedBytes> {
  const { source, target, session, signal, base } = o;
  const { metadata, ...point } = await source.readPoint(o.point.rootKey, { signal });
  const sum = { bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  const disks: { key: string; recordKey: string; mode: "full" | "incremental"; reason: string }[] =
    [];
  let bytesBefore = 0;
  for (const { key, recordKey, sizeBytes, mode, reason } of point.disks) {
    const done = await copyDisk(o, { key, recordKey, bytesBefore });
    disks.push({ key, recordKey: done.recordKey, mode, reason });
    sum.bytesRead += done.stats.bytesRead;
    sum.bytesNew += done.stats.bytesNew;
    sum.bytesStored += done.stats.bytesStored;
    bytesBefore += sizeBytes;
  }
  const { pointId, vmKey, vmName, providerId, jobId, fence } = point;
  const { takenAt, mode, consistency, warnings } = point;
  await target.writePoint(
    session,
    {
      ...{ pointId, vmKey, vmName, providerId, jobId, fence },
      ...{ takenAt, mode, consistency, warnings, metadata, disks },
      parent: base && { pointId: base.target.pointId, rootKey: base.target.rootKey },
      copiedFrom: { repositoryId: source.repositoryId, rootKey: point.rootKey },
    },
    { signal },
  );
  return sum;
}

type DiskToCopy = {
  readonly key: string;
  readonly recordKey: string;
  readonly bytesBefore: number;
};

/** A sample that differs, or an index that names what is gone, costs reading or storing more, and no more than that. */
async function copyDisk(o: CopyPointOptions, disk: DiskToCopy): Promise<TransferResult> {
  const recordIn = (point: PointSummary | undefined): string | undefined =>
    point?.disks.find(({ key }) => key === disk.key)?.recordKey;
  const base = { source: recordIn(o.base?.source), target: recordIn(o.base?.target) };
  let usesBase = base.source !== undefined && base.target !== undefined;
  let index: SessionIndex | undefined = o.index;
  for (;;) {
    try {
      const baseRecordKey = usesBase ? base.source : undefined;
      return await transferOnce(o, { ...disk, baseRecordKey, previous: base.target, index });
    } catch (error) {
      const isChanged = isFailure(error, "changes.unknown") && usesBase;
      const isStale = isFailure(error, "index.stale") && index !== undefined;
      if (!isChanged && !isStale) throw error;
      o.logger.warn("a disk is copied again", { diskKey: disk.key, reason: error.message });
      if (isChanged) usesBase = false;
      else index = undefined;
    }
  }
}

async function transferOnce(
  o: CopyPointOptions,
  disk: DiskToCopy & {
    readonly baseRecordKey: string | undefined;
    readonly previous: string | undefined;
    readonly index: SessionIndex | undefined;
  },
): Promise<TransferResult> {
  const { source: repository, fetcher, signal } = o;
  const { recordKey, baseRecordKey, previous } = disk;
  const isIncremental = baseRecordKey !== undefined;
  await using reader = await openCopyReader({
    repository,
    recordKey,
    baseRecordKey,
    fetcher,
    signal,
  });
  return await transferDisk({
    repository: o.target,
    session: o.session,
    reader: o.throttled(reader),
    diskKey: disk.key,
    ...(previous === undefined ? {} : { previous }),
    mode: isIncremental ? "incremental" : "full",
    sampleShare: isIncremental ? sampleShare : 0,
    ...disk.index,
    // Not kept: what a killed copy stored, the next one finds by the index.
    saveCheckpoint: async () => undefined,
    onProgress: ({ bytesDone }) => o.onProgress(disk.bytesBefore + bytesDone),
    ...(o.workers === undefined ? {} : { workers: o.workers }),
    signal,
    logger: o.logger,
  });
}
