import type { Catalog } from "@holdfast/shared/ports/catalog";
import { z } from "zod";
import { getBackupJob, mustGoOn, readTaskResult, type StageEvent } from "../stage-event.ts";

/** What plans need of a driver's session; the rest is the driver's own. */
const SessionDisks = z.object({
  session: z.object({ disks: z.array(z.object({ key: z.string().min(1) })) }),
});

export type DiskPlan = { readonly disks: readonly { readonly diskKey: string }[] };

/** One transfer for each disk of the snapshot. */
export async function planTransfer({ jobId }: StageEvent, catalog: Catalog): Promise<DiskPlan> {
  mustGoOn(await getBackupJob(jobId, catalog));
  return planDisks({ jobId, taskName: "snapshot" }, catalog);
}

export async function planDisks(
  task: { readonly jobId: string; readonly taskName: "snapshot" | "prepare-restore" },
  catalog: Catalog,
): Promise<DiskPlan> {
  const { session } = await readTaskResult({ ...task, schema: SessionDisks }, catalog);
  return { disks: session.disks.map(({ key }) => ({ diskKey: key })) };
}
