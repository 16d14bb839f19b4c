import type { Logger } from "@holdfast/shared/ports/logger";
import { z } from "zod";
import { runPolicy } from "../../jobs/run-policy.ts";
import { derivedJobId, type StartServices } from "../../jobs/start-jobs.ts";

/** What a policy's schedule sends; `time` is the time for which the run was planned. */
export const DispatchEvent = z.object({
  policyId: z.string().min(1).max(63),
  time: z.string().max(64).optional(),
});
export type DispatchEvent = z.infer<typeof DispatchEvent>;

/** Starts the policy's backups. The same planned time again, as Scheduler may deliver twice, starts nothing more. */
export async function dispatch(
  { policyId, time }: DispatchEvent,
  services: StartServices & { readonly logger: Logger },
): Promise<{ readonly jobIds: readonly string[]; readonly skipped: number }> {
  const { catalog, logger } = services;
  const policy = await catalog.getPolicy(policyId);
  const plannedMs = time === undefined ? Number.NaN : Date.parse(time);
  const { jobs, skipped } = await runPolicy(policy, services, (vmId) =>
    Number.isNaN(plannedMs)
      ? undefined
      : derivedJobId(["schedule", policyId, vmId, new Date(plannedMs).toISOString()], plannedMs),
  );
  for (const vm of skipped) logger.warn("vm skipped", { policyId, time, ...vm });
  logger.info("policy dispatched", { policyId, time, jobs: jobs.length, skipped: skipped.length });
  return { jobIds: jobs.map(({ jobId }) => jobId), skipped: skipped.length };
}
