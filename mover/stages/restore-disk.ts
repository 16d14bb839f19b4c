import type { RestoreJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { RestoreSession } from "@holdfast/shared/ports/driver";
import type { Repository } from "@holdfast/shared/repository/repository";
import { withReadSession } from "../hold-session.ts";
import { restoreDisk } from "../pipeline/restore-disk.ts";
import { restoreContext } from "./prepare-restore.ts";
import { createProgressReporter, type ProgressNumbers } from "./progress.ts";
import type { StageContext, StageResult } from "./stage.ts";
import { restoreSession } from "./task-results.ts";

/** Fills one disk of the target from the point, verifying every chunk and at the end the placement of all. */
export async function restoreOneDisk(
  context: StageContext,
  job: RestoreJob,
  diskKey: string,
): Promise<StageResult> {
  const session = await restoreSession(context);
  const { repository } = await context.openRepository(job.repositoryId);
  const { rootKey } = await context.catalog.getPoint(job.restore.pointId);
  return await withReadSession(
    {
      ...context,
      repository,
      kind: "restore",
      holder: `job ${job.jobId}, disk ${diskKey}`,
      pins: [rootKey],
    },
    (_, signal) => restore({ ...context, signal }, job, diskKey, { session, repository, rootKey }),
  );
}

async function restore(
  context: StageContext,
  job: RestoreJob,
  diskKey: string,
  o: {
    readonly session: RestoreSession;
    readonly repository: Repository;
    readonly rootKey: string;
  },
): Promise<StageResult> {
  const { session, repository, rootKey } = o;
  const point = await repository.readPoint(rootKey, { signal: context.signal });
  const disk = point.disks.find(({ key }) => key === diskKey);
  if (disk === undefined) {
    throw new Failure("internal", {
      message: `recovery point ${job.restore.pointId} has no disk ${diskKey}`,
    });
  }
  const driver = await context.openDriver(job.providerId);
  await using progress = createProgressReporter(context, {
    diskKey,
    sizeBytes: disk.sizeBytes,
    mode: "restore",
    reason: "",
  });
  let last: ProgressNumbers = {
    bytesDone: 0,
    bytesTotal: disk.sizeBytes,
    bytesRead: 0,
    bytesNew: 0,
    bytesStored: 0,
  };
  await using writer = await driver.openTarget(session, diskKey, restoreContext(context));
  const { bytesWritten } = await restoreDisk({
    repository,
    recordKey: disk.recordKey,
    digest: disk.digest,
    writer,
    onProgress: (now) => {
      last = { ...last, ...now };
      progress.report(last);
    },
    signal: context.signal,
    logger: context.logger,
    ...(context.workers === undefined ? {} : { workers: context.workers }),
  });
  await progress.finish(last);
  return { bytesWritten };
}
