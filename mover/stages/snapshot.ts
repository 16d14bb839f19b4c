import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { Ledger } from "@holdfast/shared/ports/ledger";
import { driverContext, type StageContext, type StageResult, tell } from "./stage.ts";

/**
 * Takes the snapshot or checkpoint. What an earlier, killed attempt of this job or an ended job of this VM left
 * on the hypervisor is removed first: the ledger names it.
 */
export async function snapshot(context: StageContext, job: BackupJob): Promise<StageResult> {
  const vm = await context.catalog.getVm(job.vmId);
  // Before the guest is touched: where its data is to go must be there and open.
  await context.openRepository(job.repositoryId);
  const driver = await context.openDriver(job.providerId);
  const calls = driverContext(context, { vmId: job.vmId });
  const previous = job.previous?.anchor;
  const leftBy = await jobsToSweep(context, calls.ledger);
  if (leftBy.length > 0) {
    await tell(context, "warn", `removing what job ${leftBy.join(", ")} left on the host`);
    await driver.release(
      {
        externalId: vm.externalId,
        session: undefined,
        outcome: "failed",
        previous: vm.head?.anchor ?? previous,
        endedJobIds: leftBy.filter((jobId) => jobId !== job.jobId),
      },
      calls,
    );
  }
  const session = await driver.snapshot(
    { externalId: vm.externalId, options: job.options, previous },
    calls,
  );
  for (const warning of session.warnings) await tell(context, "warn", warning);
  for (const disk of session.disks) {
    if (disk.reason !== "")
      await tell(context, "info", `disk ${disk.key} is read in full: ${disk.reason}`);
  }
  await context.catalog.updateJob(job.jobId, { warnings: session.warnings });
  return { session };
}

/** Jobs with unsettled entries on this VM that are not running any more, and this job itself if an attempt of it died. */
export async function jobsToSweep(
  context: StageContext,
  ledger: Ledger,
): Promise<readonly string[]> {
  const owners = new Set<string>();
  for (const entry of await ledger.list()) if (!entry.kept) owners.add(entry.jobId);
  const ended: string[] = [];
  for (const jobId of owners) {
    if (jobId === context.job.jobId || (await hasEnded(context, jobId))) ended.push(jobId);
  }
  return ended;
}

async function hasEnded(context: StageContext, jobId: string): Promise<boolean> {
  try {
    return jobStatesEnded.includes((await context.catalog.getJob(jobId)).state);
  } catch (error) {
    // A job whose record is gone cannot be running.
    if (isFailure(error, "not-found")) return true;
    throw error;
  }
}
