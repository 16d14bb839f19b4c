import type { Job } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { Workflows } from "@holdfast/shared/ports/workflows";
import { z } from "zod";
import { recoverJob } from "../../jobs/recover-job.ts";

/** What Step Functions tells the default bus when an execution's status changes. An execution is named by its job. */
export const StatusChange = z.object({
  detail: z.object({
    stateMachineArn: z.string(),
    name: z.string().min(1).max(128),
    status: z.string(),
    error: z.string().nullish(),
    cause: z.string().nullish(),
  }),
});
export type StatusChange = z.infer<typeof StatusChange>;

/**
 * Starts the clean-up of a job whose execution ended and could not end the job: stopped by hand, timed out, or broken by a
 * limit of the engine. Executions that are not of our jobs, and jobs that have ended, are none of its business.
 */
export async function recoverFromEvent(
  { detail }: StatusChange,
  services: {
    readonly catalog: Catalog;
    readonly workflows: Workflows;
    readonly siteQueueUrl: (siteId: string) => string;
    readonly jobStateMachineArns: readonly string[];
    readonly logger: Logger;
  },
): Promise<{ readonly recovered: boolean }> {
  const { stateMachineArn, name: jobId, status, error, cause } = detail;
  if (status === "RUNNING" || !services.jobStateMachineArns.includes(stateMachineArn)) {
    return { recovered: false };
  }
  const job = await findJob(jobId, services.catalog);
  if (job === undefined) return { recovered: false };
  const reason = {
    Error: error || (status === "TIMED_OUT" ? "States.Timeout" : `Execution${status}`),
    Cause: cause || `the job's workflow ended as ${status} before it could end the job`,
  };
  const recovered = await recoverJob(job, reason, services);
  if (recovered) services.logger.error("workflow ended without ending its job", { jobId, status });
  return { recovered };
}

async function findJob(jobId: string, catalog: Catalog): Promise<Job | undefined> {
  try {
    return await catalog.getJob(jobId);
  } catch (error) {
    if (isFailure(error, "not-found")) return undefined;
    throw error;
  }
}
