import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { beginJobSession } from "./job-session.ts";
import { driverContext, type StageContext, type StageResult } from "./stage.ts";
import { backupSession } from "./task-results.ts";

/** Seals the VM's metadata into the repository at once: it may hold secrets (a console's password), which no catalog item may. */
export async function exportMetadata(context: StageContext, job: BackupJob): Promise<StageResult> {
  const session = await backupSession(context);
  const driver = await context.openDriver(job.providerId);
  const metadata = await driver.metadata(session, driverContext(context, { vmId: job.vmId }));
  const { repository } = await context.openRepository(job.repositoryId);
  const own = await beginJobSession(context, job, repository);
  const { metadataKey } = await repository.putMetadata(own, metadata, { signal: context.signal });
  return { metadataKey };
}
