import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { BackupSession } from "@holdfast/shared/ports/driver";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
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
  if (outcome === "failed") await endRepositorySession(context, job);
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

/**
 * Tells the repository that the job makes no point, so that what it stored need not be kept for a day. Not once the stage that writes the point was
 * begun: its root may be in the store, and seen; then a collection decides. That the repository is away does not hold up the guest's clean-up.
 */
async function endRepositorySession(context: StageContext, job: BackupJob): Promise<void> {
  const { catalog, record, logger } = context;
  if (job.repositorySessionId === undefined) return;
  const taken = await catalog.claimTask(job.jobId, "write-recovery-point", record.moverId);
  if (taken.claim > 1 || taken.result !== undefined) return;
  try {
    const { repository } = await context.openRepository(job.repositoryId);
    const session = await resumeIfOpen(repository, job.repositorySessionId, context);
    await session?.abort({ signal: context.signal });
  } catch (error) {
    if (context.signal.aborted) throw error;
    logger.warn("session not ended; a collection ends it after its silence", {
      sessionId: job.repositorySessionId,
      reason: String(error),
    });
  }
}

async function resumeIfOpen(
  repository: Repository,
  sessionId: string,
  { signal }: StageContext,
): Promise<Session | undefined> {
  try {
    return await repository.sessions.resume(sessionId, { signal });
  } catch (error) {
    if (isFailure(error, "session.ended")) return undefined;
    throw error;
  }
}

async function sessionIfAny(context: StageContext): Promise<BackupSession | undefined> {
  const result = await context.catalog.getTaskResult(context.job.jobId, "snapshot");
  return result === undefined ? undefined : backupSession(context);
}
