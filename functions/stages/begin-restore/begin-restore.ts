import { isFailure } from "@holdfast/shared/domain/failure";
import type { StartServices } from "../../jobs/start-jobs.ts";
import { getRestoreJob, mustGoOn, type StageEvent } from "../stage-event.ts";

/** Checks that point, repository and provider are there, and lets the job run. A restore holds no VM: its target does not exist yet. */
export async function beginRestore(
  { jobId }: StageEvent,
  { catalog, clock, siteQueueUrl }: StartServices,
): Promise<{ readonly jobId: string; readonly siteQueueUrl: string }> {
  const job = await getRestoreJob(jobId, catalog);
  mustGoOn(job);
  await catalog.getProvider(job.providerId);
  await catalog.getRepository(job.repositoryId);
  await catalog.getPoint(job.restore.pointId);
  try {
    await catalog.updateJob(jobId, {
      state: "running",
      stage: "begin",
      startedAt: job.startedAt ?? new Date(clock.now()).toISOString(),
    });
  } catch (error) {
    // Cancelled between the two looks at it.
    if (isFailure(error, "conflict")) mustGoOn(await catalog.getJob(jobId));
    throw error;
  }
  return { jobId, siteQueueUrl: siteQueueUrl(job.siteId) };
}
