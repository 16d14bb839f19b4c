import type { RestoreJob } from "@holdfast/shared/contracts/catalog-items";
import type { DriverContext } from "@holdfast/shared/ports/driver";
import { driverContext, type StageContext, type StageResult, tell } from "./stage.ts";

/** Checks that the target can take the restore and makes its empty disks under temporary names. */
export async function prepareRestore(context: StageContext, job: RestoreJob): Promise<StageResult> {
  const { repository } = await context.openRepository(job.repositoryId);
  const { rootKey } = await context.catalog.getPoint(job.restore.pointId);
  const point = await repository.readPoint(rootKey, { signal: context.signal });
  const driver = await context.openDriver(job.providerId);
  const calls = restoreContext(context);
  if ((await calls.ledger.list()).length > 0) await driver.abandonRestore(undefined, calls);
  const session = await driver.prepareRestore(
    {
      metadata: point.metadata,
      disks: point.disks.map(({ key, sizeBytes }) => ({ key, sizeBytes })),
      target: {
        name: job.restore.name ?? point.metadata.description.name,
        mode: job.restore.mode,
        keepIdentity: job.restore.keepIdentity,
        start: job.restore.start,
        location: job.restore.location,
        storage: job.restore.storage,
        format: job.restore.format,
        excludedDisks: job.restore.excludedDisks,
      },
    },
    calls,
  );
  for (const warning of session.warnings) await tell(context, "warn", warning);
  await context.catalog.updateJob(job.jobId, { warnings: session.warnings });
  return { session };
}

/** A restore's ledger belongs to the job: the VM does not exist yet. */
export function restoreContext(context: StageContext): DriverContext {
  return driverContext(context, { restoreJobId: context.job.jobId });
}
