import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Driver, SessionDisk } from "@holdfast/shared/ports/driver";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import type { SessionIndex } from "../pipeline/chunk-index-loader.ts";
import type { TransferMode } from "../pipeline/transfer-checkpoint.ts";
import { type TransferProgress, transferDisk } from "../pipeline/transfer-disk.ts";
import { parentOf, resumeJobSession } from "./job-session.ts";
import { createProgressReporter } from "./progress.ts";
import { driverContext, type StageContext, type StageResult, tell } from "./stage.ts";
import { backupSession, type TransferResult } from "./task-results.ts";

/**
 * Moves one disk into the repository, from the last checkpoint if an earlier attempt died. When a sample shows that
 * the source's change tracking lied, the disk is read again in full and the point says so.
 */
export async function transferOneDisk(
  context: StageContext,
  job: BackupJob,
  diskKey: string,
): Promise<StageResult> {
  const session = await backupSession(context);
  const disk = session.disks.find(({ key }) => key === diskKey);
  if (disk === undefined) {
    throw new Failure("internal", { message: `disk ${diskKey} is not part of job ${job.jobId}` });
  }
  const driver = await context.openDriver(job.providerId);
  const calls = driverContext(context, { vmId: job.vmId });
  context.watch(() => driver.watch(session, calls));
  const { repository, indexLoader } = await context.openRepository(job.repositoryId);
  const own = await resumeJobSession(context, job, repository);
  const previous = await previousRecord(context, own, repository, job, diskKey);

  // Each time a sample shows that the source's claims are not true, less of them is believed.
  let mode: TransferMode = disk.mode;
  let reason = disk.reason;
  if (mode === "incremental" && previous === undefined) {
    mode = "full";
    reason = "the previous recovery point has no usable record of this disk";
  }
  let index: SessionIndex | undefined = await indexLoader.load(own, context.signal);
  for (;;) {
    const full = mode !== "incremental";
    const openReader = () => driver.openDisk(session, diskKey, { ...calls, full });
    try {
      return await transfer({
        context,
        job,
        disk,
        repository,
        own,
        index,
        previous,
        mode,
        reason,
        openReader,
      });
    } catch (error) {
      if (isFailure(error, "index.stale") && index !== undefined) {
        await tell(context, "warn", `disk ${diskKey} is read again: ${error.message}`);
        index = undefined;
        continue;
      }
      if (!isFailure(error, "changes.unknown") || mode === "all") throw error;
      await tell(
        context,
        "error",
        `ALARM: what the source says of disk ${diskKey} cannot be trusted: ${error.message}; reading ${mode === "full" ? "everything" : "it in full"}`,
      );
      reason = error.message;
      mode = mode === "incremental" ? "full" : "all";
    }
  }
}

type Attempt = {
  readonly context: StageContext;
  readonly job: BackupJob;
  readonly disk: SessionDisk;
  readonly repository: Repository;
  readonly own: Session;
  readonly index: SessionIndex | undefined;
  readonly previous: string | undefined;
  readonly mode: TransferMode;
  readonly reason: string;
  readonly openReader: () => ReturnType<Driver["openDisk"]>;
};

async function transfer(attempt: Attempt): Promise<TransferResult> {
  const { context, job, disk, repository, reason } = attempt;
  const { catalog, record, signal } = context;
  const mode = attempt.mode === "incremental" ? ("incremental" as const) : ("full" as const);
  const checkpoint = await catalog.getCheckpoint(job.jobId, record.taskName);
  if (checkpoint !== undefined) {
    await tell(context, "info", `disk ${disk.key}: going on from the last checkpoint`);
  }
  await using progress = createProgressReporter(context, {
    diskKey: disk.key,
    sizeBytes: disk.sizeBytes,
    mode,
    reason,
  });
  await using reader = await attempt.openReader();
  const { recordKey, stats } = await transferDisk({
    repository,
    session: attempt.own,
    ...attempt.index,
    reader,
    diskKey: disk.key,
    previous: attempt.previous,
    mode: attempt.mode,
    checkpoint,
    sampleShare: job.options.sampleShare,
    saveCheckpoint: (state) => catalog.putCheckpoint(job.jobId, record, state),
    onProgress: (now: TransferProgress) => progress.report(now),
    signal,
    logger: context.logger,
    ...(context.workers === undefined ? {} : { workers: context.workers }),
  });
  await progress.finish(stats);
  const { bytesRead, bytesNew, bytesStored } = stats;
  return { recordKey, mode, reason, bytesRead, bytesNew, bytesStored };
}

/** The disk's record in the point that this job builds on; undefined when there is none or it cannot be read. */
export async function previousRecord(
  context: StageContext,
  own: Session,
  repository: Repository,
  job: BackupJob,
  diskKey: string,
): Promise<string | undefined> {
  const parent = await parentOf(context, job);
  if (parent === undefined) return undefined;
  const { pointId, rootKey } = parent;
  const { signal } = context;
  try {
    const isUsable = await repository.sessions.isUsablePoint(own, rootKey, { signal });
    if (!isUsable) {
      await tellUnusable(context, own, { pointId, rootKey });
      return undefined;
    }
    const point = await repository.readPoint(rootKey, { signal });
    return point.disks.find(({ key }) => key === diskKey)?.recordKey;
  } catch (error) {
    if (!isFailure(error, "object.not-found") && !isFailure(error, "object.corrupt")) {
      throw error;
    }
    await tell(
      context,
      "error",
      `recovery point ${pointId} cannot be read, so disk ${diskKey} is read in full: ${error.message}`,
    );
    return undefined;
  }
}

/** That a whole repository was set back to an earlier time nothing in it can tell: the catalog knows the points that it had. */
async function tellUnusable(
  context: StageContext,
  own: Session,
  { pointId, rootKey }: { readonly pointId: string; readonly rootKey: string },
): Promise<void> {
  if (own.condemned.roots.has(rootKey)) {
    await tell(context, "warn", `recovery point ${pointId} is being removed from the repository`);
    return;
  }
  await tell(
    context,
    "error",
    `recovery point ${pointId} is known here and is not in the repository any more (${rootKey}): it was removed without this control plane, or the storage was set back to an earlier time; "holdfast repository verify" and "doctor" say more`,
  );
}
