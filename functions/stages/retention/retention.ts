import { type Job, jobStatesEnded, type Policy } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import { planRetention } from "@holdfast/shared/domain/retention";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { getBackupJob, type StageEvent } from "../stage-event.ts";

/** How many of the VM's newest jobs are searched for running ones. */
const jobsSearchedMax = 100;

/**
 * Takes the points that the policy no longer keeps off the VM's list, in the job's repository. A job without a policy
 * removes nothing; neither does one whose policy was removed meanwhile.
 */
export async function applyRetention(
  { jobId }: StageEvent,
  catalog: Catalog,
): Promise<{ readonly removed: readonly string[] }> {
  const job = await getBackupJob(jobId, catalog);
  const policy = job.policyId === undefined ? undefined : await findPolicy(job.policyId, catalog);
  if (policy === undefined) return { removed: [] };

  const points = (await catalog.listPoints(job.vmId)).filter(
    ({ repositoryId }) => repositoryId === job.repositoryId,
  );
  const { head } = await catalog.getVm(job.vmId);
  const jobs = await catalog.listJobs({ limit: jobsSearchedMax, vmId: job.vmId });
  const { remove } = planRetention({
    points,
    retention: policy.retention,
    pinned: new Set([...(head === undefined ? [] : [head.pointId]), ...jobs.flatMap(pinnedBy)]),
    timeZone: policy.timeZone,
  });
  await catalog.unlistPoints(remove);
  return { removed: remove.map(({ pointId }) => pointId) };
}

/** What a job that has not ended builds on or restores. */
export function pinnedBy(job: Job): readonly string[] {
  if (jobStatesEnded.includes(job.state)) return [];
  switch (job.kind) {
    case "backup":
      return job.previous === undefined ? [] : [job.previous.pointId];
    case "restore":
      return [job.restore.pointId];
    case "inspect":
      return [];
    default:
      return job satisfies never;
  }
}

async function findPolicy(policyId: string, catalog: Catalog): Promise<Policy | undefined> {
  try {
    return await catalog.getPolicy(policyId);
  } catch (error) {
    if (isFailure(error, "not-found")) return undefined;
    throw error;
  }
}
