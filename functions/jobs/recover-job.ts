import { type Job, jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { RecoveryInput, Workflows } from "@holdfast/shared/ports/workflows";

/** Long enough for a reason, far below what an execution's input may hold. */
const causeLengthMax = 20_000;

/**
 * Starts the clean-up of a job whose workflow has ended without ending it; may be repeated. A job that has ended needs
 * none. Returns whether it was needed.
 */
export async function recoverJob(
  job: Job,
  error: RecoveryInput["error"],
  services: {
    readonly catalog: Catalog;
    readonly workflows: Workflows;
    readonly siteQueueUrl: (siteId: string) => string;
  },
): Promise<boolean> {
  const { catalog, workflows, siteQueueUrl } = services;
  // A workflow's last step ends the job, so one that has ended by now has said so by now.
  const now = await catalog.getJob(job.jobId);
  if (jobStatesEnded.includes(now.state)) return false;
  await workflows.recover(job, {
    jobId: job.jobId,
    siteQueueUrl: siteQueueUrl(job.siteId),
    error: { Error: error.Error, Cause: error.Cause.slice(0, causeLengthMax) },
  });
  return true;
}
