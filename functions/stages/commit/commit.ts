import { ChangeAnchorItem, RecoveryPoint } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { z } from "zod";
import { getBackupJob, mustGoOn, readTaskResult, type StageEvent } from "../stage-event.ts";

const Written = z.object({ rootKey: z.string().min(1), point: RecoveryPoint });
const Snapshot = z.object({ session: z.object({ anchor: ChangeAnchorItem.optional() }) });

/**
 * The moment at which a recovery point starts to exist: one conditional write to the VM, under the job's fence.
 * Of two attempts one wins; the other hears `fence.lost`. Repeating the one that won is a success.
 */
export async function commit(
  { jobId }: StageEvent,
  catalog: Catalog,
): Promise<{ readonly pointId: string }> {
  const job = await getBackupJob(jobId, catalog);
  const { point, rootKey } = await readTaskResult(
    { jobId, taskName: "write-recovery-point", schema: Written },
    catalog,
  );
  const { session } = await readTaskResult(
    { jobId, taskName: "snapshot", schema: Snapshot },
    catalog,
  );
  const isOfThisJob =
    point.jobId === jobId &&
    point.vmId === job.vmId &&
    point.repositoryId === job.repositoryId &&
    point.rootKey === rootKey;
  if (!isOfThisJob || job.fence === undefined) {
    throw new Failure("internal", {
      message: `recovery point ${point.pointId} does not fit job ${jobId}, which was to commit it`,
    });
  }
  const { head } = await catalog.getVm(job.vmId);
  // A commit that was done stays done, whatever happened to the job since.
  if (head?.pointId !== point.pointId) mustGoOn(job);
  await catalog.commitPoint(point, { fence: job.fence, anchor: session.anchor });
  await catalog.updateJob(jobId, { stage: "commit", pointId: point.pointId });
  return { pointId: point.pointId };
}
