import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import type { BackupSession } from "@holdfast/shared/ports/driver";
import { jobsToSweep } from "./snapshot.ts";
import {
  driverContext,
  type StageContext,
  type StageResult,
  takeOverTasks,
  tell,
} from "./stage.ts";
import { backupSession } from "./task-results.ts";

/**
 * Removes what the job made on the hypervisor, on success and on failure. Whether the job committed is looked up,
 * not believed: a commit whose answer got lost is a commit, and its anchor must stay.
 */
export async function release(
  context: StageContext,
  job: BackupJob,
  claimed: "committed" | "failed",
): Promise<StageResult> {
  const vm = await context.catalog.getVm(job.vmId);
  const outcome = vm.head?.jobId === job.jobId ? "committed" : "failed";
  if (outcome !== claimed) {
    await tell(context, "warn", `the job was reported as ${claimed}, the catalog says ${outcome}`);
  }
  const calls = driverContext(context, { vmId: job.vmId });
  // In this order: a snapshot that ends meanwhile has either left its session or lost its claim.
  if (outcome === "failed") await takeOverTasks(context, ["snapshot"]);
  const session = await sessionIfAny(context);
  if (outcome === "failed" && session !== undefined) {
    await takeOverTasks(
      context,
      session.disks.map(({ key }) => `transfer-disk:${key}`),
    );
  }
  const entries = await calls.ledger.list();
  if (session === undefined && entries.length === 0) return { outcome };

  const driver = await context.openDriver(job.providerId);
  const endedJobIds = (await jobsToSweep(context, calls.ledger)).filter((id) => id !== job.jobId);
  await driver.release(
    {
      externalId: vm.externalId,
      session,
      outcome,
      previous: outcome === "committed" ? job.previous?.anchor : vm.head?.anchor,
      endedJobIds,
    },
    calls,
  );
  const left = (await calls.ledger.list()).filter(({ kept }) => !kept);
  if (left.length > 0) {
    const names = left.map(({ kind, name }) => `${kind} ${name}`).join(", ");
    await tell(context, "warn", `still on the host, removed by the VM's next job: ${names}`);
  }
  return { outcome };
}

async function sessionIfAny(context: StageContext): Promise<BackupSession | undefined> {
  const result = await context.catalog.getTaskResult(context.job.jobId, "snapshot");
  return result === undefined ? undefined : backupSession(context);
}
