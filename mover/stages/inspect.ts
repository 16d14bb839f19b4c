import type { InspectJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import { type StageContext, type StageResult, tell } from "./stage.ts";

/** A provider's connection test or its inventory sync. */
export async function inspect(context: StageContext, job: InspectJob): Promise<StageResult> {
  const { catalog, clock, signal, logger } = context;
  await catalog.updateJob(job.jobId, {
    state: "running",
    startedAt: new Date(clock.now()).toISOString(),
  });
  const driver = await context.openDriver(job.providerId);
  const findings = await driver.check({ signal, logger });
  await catalog.updateJob(job.jobId, { findings });
  const failed = findings.filter((finding) => finding.state === "failed");
  if (job.mode === "test") {
    await tell(context, "info", `${findings.length} checks, ${failed.length} failed`);
    return {};
  }
  const at = new Date(clock.now()).toISOString();
  try {
    const [first] = failed;
    if (first !== undefined) {
      throw new Failure("host.command-failed", {
        message: `${first.check}: ${first.message}${first.remedy ? `; ${first.remedy}` : ""}`,
      });
    }
    let vmsSeen = 0;
    for await (const item of driver.inventory({ signal, logger })) {
      await catalog.upsertVm(job.providerId, item, at);
      vmsSeen += 1;
    }
    const gone = await catalog.markGone(job.providerId, at);
    await catalog.updateJob(job.jobId, { vmsSeen });
    await catalog.recordSync(job.providerId, { at });
    await tell(context, "info", `${vmsSeen} VMs found, ${gone} no longer there`);
    return { vmsSeen };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    await catalog.recordSync(job.providerId, { at, error: text.slice(0, 1000) });
    throw error;
  }
}
