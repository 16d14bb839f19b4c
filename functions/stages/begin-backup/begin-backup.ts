import { createHash } from "node:crypto";
import type { BackupJob, Vm } from "@holdfast/shared/contracts/catalog-items";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { type StartServices, takeVm } from "../../jobs/start-jobs.ts";
import { getBackupJob, mustGoOn, type StageEvent } from "../stage-event.ts";

export type BegunJob = {
  readonly jobId: string;
  readonly siteQueueUrl: string;
  readonly fence: number;
};

/** Holds the VM for this job and decides what the backup builds on. */
export async function beginBackup(
  { jobId }: StageEvent,
  services: StartServices,
): Promise<BegunJob> {
  const { catalog, clock, siteQueueUrl } = services;
  const job = await getBackupJob(jobId, catalog);
  mustGoOn(job);
  await catalog.getProvider(job.providerId);
  await catalog.getRepository(job.repositoryId);

  const fence = await takeVm(job.vmId, jobId, services);
  // Read under the lock: the head cannot move any more.
  const vm = await catalog.getVm(job.vmId);
  if (vm.gone) {
    throw new Failure("vm.gone", {
      message: `VM ${vm.description.name} was not found by the last sync`,
    });
  }
  const previous = choosePrevious(job, vm);
  try {
    await catalog.updateJob(jobId, {
      state: "running",
      stage: "begin",
      startedAt: job.startedAt ?? new Date(clock.now()).toISOString(),
      fence,
      repositorySessionId: sessionIdOf(jobId),
      ...(previous === undefined ? {} : { previous }),
    });
  } catch (error) {
    // Cancelled between the two looks at it.
    if (isFailure(error, "conflict")) mustGoOn(await catalog.getJob(jobId));
    throw error;
  }
  return { jobId, siteQueueUrl: siteQueueUrl(job.siteId), fence };
}

/** Made of the job's id, which is random: Begin may run twice, also late, and a job has one session. */
function sessionIdOf(jobId: string): string {
  return createHash("sha256").update(`session of job ${jobId}`).digest("hex").slice(0, 16);
}

/** The VM's newest committed point, where an incremental on top of it is possible and wanted. */
export function choosePrevious(job: BackupJob, { head }: Vm): BackupJob["previous"] {
  if (head === undefined || head.repositoryId !== job.repositoryId) return undefined;
  if (job.full || !job.options.incremental) return undefined;
  return {
    pointId: head.pointId,
    ...(head.anchor === undefined ? {} : { anchor: head.anchor }),
  };
}
