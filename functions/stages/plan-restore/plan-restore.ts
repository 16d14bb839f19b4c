import type { Catalog } from "@holdfast/shared/ports/catalog";
import { type DiskPlan, planDisks } from "../plan-transfer/plan-transfer.ts";
import { getRestoreJob, mustGoOn, type StageEvent } from "../stage-event.ts";

/** One transfer for each disk that the target was prepared for. */
export async function planRestore({ jobId }: StageEvent, catalog: Catalog): Promise<DiskPlan> {
  mustGoOn(await getRestoreJob(jobId, catalog));
  return planDisks({ jobId, taskName: "prepare-restore" }, catalog);
}
