import type { RestoreJob } from "@holdfast/shared/contracts/catalog-items";
import { restoreContext } from "./prepare-restore.ts";
import { type StageContext, type StageResult, takeOverTasks, tell } from "./stage.ts";
import { restoreSession } from "./task-results.ts";

/** Puts the disks in place, defines the VM and starts it if asked. */
export async function finishRestore(context: StageContext, job: RestoreJob): Promise<StageResult> {
  const session = await restoreSession(context);
  const driver = await context.openDriver(job.providerId);
  const { externalId, name, started, warnings } = await driver.finishRestore(
    session,
    restoreContext(context),
  );
  for (const warning of warnings) await tell(context, "warn", warning);
  await context.catalog.updateJob(job.jobId, {
    restored: { externalId, name, started },
    warnings: [...session.warnings, ...warnings],
  });
  await tell(context, "info", `VM ${name} restored${started ? " and started" : ""}`);
  return { externalId, name, started };
}

/**
 * Removes what the failed restore made, and nothing that existed before. A restore whose VM exists already, because its
 * workflow died after that, is no failed one.
 */
export async function abandonRestore(context: StageContext, job: RestoreJob): Promise<StageResult> {
  await takeOverTasks(context, ["prepare-restore", "finish-restore"]);
  if ((await context.catalog.getTaskResult(job.jobId, "finish-restore")) !== undefined) return {};
  const prepared = await context.catalog.getTaskResult(job.jobId, "prepare-restore");
  if (prepared !== undefined) {
    const { disks } = await restoreSession(context);
    await takeOverTasks(
      context,
      disks.map(({ key }) => `restore-disk:${key}`),
    );
  }
  const calls = restoreContext(context);
  if (prepared === undefined && (await calls.ledger.list()).length === 0) return {};
  const driver = await context.openDriver(job.providerId);
  await driver.abandonRestore(
    prepared === undefined ? undefined : await restoreSession(context),
    calls,
  );
  return {};
}
