import type { BackupJob, Job, RestoreJob } from "@holdfast/shared/contracts/catalog-items";
import { jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Logger } from "@holdfast/shared/ports/logger";
import middy from "@middy/core";
import { z } from "zod";
import { logContext } from "../middleware/log-context.ts";
import { mapFailures } from "../middleware/map-failures.ts";
import { parseEvent } from "../middleware/parse-event.ts";

/** What the state machines give to a stage. What else there is in their state is none of its business. */
export const StageEvent = z.object({ jobId: z.string().min(1).max(128) });
export type StageEvent = z.infer<typeof StageEvent>;

/** A Lambda handler around one decision: parse, decide, answer; failures as the state machines understand them. */
export function stageHandler<Event, Result>(stage: {
  readonly name: string;
  readonly event: z.ZodType<Event>;
  readonly logger: () => Logger;
  readonly decide: (event: Event) => Promise<Result>;
}) {
  return middy<Event, Result>()
    .use(mapFailures())
    .use(logContext(stage.name, stage.logger))
    .use(parseEvent(stage.event))
    .handler((event: Event) => stage.decide(event));
}

/** Fails with `cancelled` when the job is to stop, and with `conflict` when it has ended. */
export function mustGoOn(job: Job): void {
  if (job.state === "cancelling") {
    throw new Failure("cancelled", { message: `job ${job.jobId} was cancelled` });
  }
  if (jobStatesEnded.includes(job.state)) {
    throw new Failure("conflict", { message: `job ${job.jobId} has ended: ${job.state}` });
  }
}

export async function getBackupJob(jobId: string, catalog: Catalog): Promise<BackupJob> {
  const job = await catalog.getJob(jobId);
  if (job.kind === "backup") return job;
  throw new Failure("internal", { message: `job ${jobId} is a ${job.kind}, not a backup` });
}

export async function getRestoreJob(jobId: string, catalog: Catalog): Promise<RestoreJob> {
  const job = await catalog.getJob(jobId);
  if (job.kind === "restore") return job;
  throw new Failure("internal", { message: `job ${jobId} is a ${job.kind}, not a restore` });
}

/** The result that a mover's task left. `internal` when it isn't there or not understood: the state machine orders the stages. */
export async function readTaskResult<Result>(
  options: {
    readonly jobId: string;
    readonly taskName: string;
    readonly schema: z.ZodType<Result>;
  },
  catalog: Catalog,
): Promise<Result> {
  const { jobId, taskName, schema } = options;
  const parsed = schema.safeParse(await catalog.getTaskResult(jobId, taskName));
  if (parsed.success) return parsed.data;
  throw new Failure("internal", {
    message: `job ${jobId} has no result of ${taskName} that is understood`,
    cause: parsed.error,
  });
}
