import type { BackupJob, RecoveryPoint } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { BackupSession } from "@holdfast/shared/ports/driver";
import { parentOf, resumeJobSession } from "./job-session.ts";
import type { StageContext, StageResult } from "./stage.ts";
import { backupSession, MetadataResult, readResult, TransferResult } from "./task-results.ts";

type Transferred = TransferResult & { readonly key: string; readonly sizeBytes: number };

/**
 * Writes the point's root object, the last object of the point. The point is listed only when the Commit stage has won
 * the VM's item for it; until then it is a candidate that a retry of this job takes up.
 */
export async function writeRecoveryPoint(
  context: StageContext,
  job: BackupJob,
): Promise<StageResult> {
  const { catalog, signal } = context;
  const session = await backupSession(context);
  const { metadataKey } = await readResult(context, "export-metadata", MetadataResult);
  const disks = await transferred(context, session);
  const vm = await catalog.getVm(job.vmId);
  const mode = disks.some((disk) => disk.mode === "incremental")
    ? ("incremental" as const)
    : ("full" as const);
  // A disk that is full by plan says so by its `reason`; one that had to become full is a warning.
  const warnings = [
    ...session.warnings,
    ...disks
      .filter(({ key, mode }) => mode === "full" && plannedMode(session, key) === "incremental")
      .map(({ key, reason }) => `disk ${key} was read in full: ${reason}`),
  ];
  await catalog.updateJob(job.jobId, { warnings });
  const { fence } = job;
  if (fence === undefined) {
    throw new Failure("internal", { message: `job ${job.jobId} has no fence: Begin did not run` });
  }
  const parent = await parentOf(context, job);
  const common = {
    // One job makes one point, so the point takes the job's id: a retry cannot make a second one.
    pointId: job.jobId,
    vmName: vm.description.name,
    providerId: job.providerId,
    jobId: job.jobId,
    takenAt: session.takenAt,
    mode,
    consistency: session.consistency,
    warnings,
  };
  const { repository } = await context.openRepository(job.repositoryId);
  const own = await resumeJobSession(context, job, repository, { alsoCommitted: true });
  const { rootKey } = await repository.writePoint(
    own,
    {
      ...common,
      vmKey: job.vmId,
      fence,
      parent,
      metadata: { metadataKey },
      disks: disks.map(({ key, recordKey, mode, reason }) => ({ key, recordKey, mode, reason })),
    },
    { signal },
  );
  const point: RecoveryPoint = {
    ...common,
    vmId: job.vmId,
    repositoryId: job.repositoryId,
    rootKey,
    committedAt: new Date(context.clock.now()).toISOString(),
    disks: disks.map(({ recordKey: _, ...disk }) => disk),
    ...(parent === undefined ? {} : { parentPointId: parent.pointId }),
  };
  return { rootKey, point };
}

async function transferred(
  context: StageContext,
  session: BackupSession,
): Promise<readonly Transferred[]> {
  const disks: Transferred[] = [];
  for (const { key, sizeBytes } of session.disks) {
    const result = await readResult(context, `transfer-disk:${key}`, TransferResult);
    disks.push({ ...result, key, sizeBytes });
  }
  return disks;
}

function plannedMode(session: BackupSession, diskKey: string): "full" | "incremental" | undefined {
  return session.disks.find(({ key }) => key === diskKey)?.mode;
}
