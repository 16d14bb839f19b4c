import { type Job, type JobState, jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import type { FailureRecord } from "@holdfast/shared/domain/failure";
import type { Catalog, JobChange } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { EventBus } from "@holdfast/shared/ports/event-bus";
import { z } from "zod";
import { StageEvent } from "../stage-event.ts";
import { CaughtError, failureFromError } from "./failure-from-error.ts";

export const FinishEvent = StageEvent.extend({
  error: CaughtError.optional(),
  /** The clean-up did not complete. */
  releaseError: CaughtError.optional(),
});
export type FinishEvent = z.infer<typeof FinishEvent>;

const warningsMax = 50;
const warningLengthMax = 2000;

const Written = z.object({ point: z.object({ warnings: z.array(z.string()) }) });

/**
 * The last stage of every job: its outcome, the VM given back, the event sent. Each step may be repeated; an outcome
 * once recorded is never changed. Whether the job committed is looked up, not believed: a point or a
 * restored VM that is there is a success with a warning, whatever failed after it.
 */
export async function finishJob(
  event: FinishEvent,
  services: { readonly catalog: Catalog; readonly clock: Clock; readonly eventBus: EventBus },
): Promise<{ readonly state: JobState }> {
  const { catalog, clock, eventBus } = services;
  const job = await catalog.getJob(event.jobId);
  if (!jobStatesEnded.includes(job.state)) {
    const outcome = decideOutcome(job, event, await findCommitted(job, catalog));
    await catalog.updateJob(job.jobId, {
      ...outcome,
      endedAt: new Date(clock.now()).toISOString(),
    });
  }
  if (job.kind === "backup") await catalog.unlockVm(job.vmId, job.jobId);
  const ended = await catalog.getJob(job.jobId);
  await eventBus.publish({ type: "holdfast.job.finished", detail: describe(ended) });
  return { state: ended.state };
}

type Committed = {
  /** Of a backup. */
  readonly pointId?: string;
  readonly warnings: readonly string[];
  /** What exists, for messages. */
  readonly what: "the commit" | "the VM was restored";
};

/**
 * What this job has brought into being: the point that it committed or the VM that it restored. A backup still holds its VM,
 * so the head is its own or an older job's.
 */
async function findCommitted(job: Job, catalog: Catalog): Promise<Committed | undefined> {
  if (job.kind === "restore") {
    const restored = await catalog.getTaskResult(job.jobId, "finish-restore");
    return restored && { warnings: [], what: "the VM was restored" };
  }
  if (job.kind !== "backup") return undefined;
  const { head } = await catalog.getVm(job.vmId);
  if (head?.jobId !== job.jobId) return undefined;
  const written = Written.safeParse(await catalog.getTaskResult(job.jobId, "write-recovery-point"));
  const warnings = written.data?.point.warnings ?? [];
  return { pointId: head.pointId, warnings, what: "the commit" };
}

export function decideOutcome(
  job: Job,
  { error, releaseError }: FinishEvent,
  committed: Committed | undefined,
): JobChange {
  const failure = error && failureFromError(error);
  const warnings = [...job.warnings, ...(committed?.warnings ?? []), ...findingWarnings(job)];
  if (releaseError !== undefined) {
    warnings.push(`clean-up is not complete: ${failureFromError(releaseError).message}`);
  }
  const point = committed?.pointId === undefined ? {} : { pointId: committed.pointId };
  const withWarnings = (all: readonly string[]) => ({ ...point, warnings: bounded(all) });

  if (failure === undefined) {
    const change = withWarnings(warnings);
    return { ...change, state: change.warnings.length > 0 ? "warnings" : "succeeded" };
  }
  if (committed !== undefined) {
    return {
      ...withWarnings([...warnings, `after ${committed.what}: ${failure.message}`]),
      state: "warnings",
    };
  }
  return { ...withWarnings(warnings), state: stateOf(failure), failure: toItem(failure) };
}

/** Each said once; so many that item and event stay well below their limits. */
function bounded(warnings: readonly string[]): string[] {
  const unique = [...new Set(warnings.map((warning) => warning.slice(0, warningLengthMax)))];
  if (unique.length <= warningsMax) return unique;
  const left = unique.length - warningsMax;
  return [...unique.slice(0, warningsMax), `and ${left} more warnings, see the job's log`];
}

function stateOf(failure: FailureRecord): JobState {
  return failure.code === "cancelled" ? "cancelled" : "failed";
}

function toItem({ code, message, causes }: FailureRecord): NonNullable<Job["failure"]> {
  return { code, message, causes: [...causes] };
}

function findingWarnings(job: Job): readonly string[] {
  if (job.kind !== "inspect") return [];
  return (job.findings ?? [])
    .filter(({ state }) => state !== "ok")
    .map(({ check, message, remedy }) =>
      [`${check}: ${message}`, remedy].filter(Boolean).join("; "),
    );
}

function describe(job: Job): Record<string, unknown> {
  const { jobId, kind, state, providerId, createdAt, startedAt, endedAt, failure, warnings } = job;
  return {
    v: 1,
    jobId,
    kind,
    state,
    providerId,
    createdAt,
    startedAt,
    endedAt,
    failure,
    warnings,
    ...(job.kind === "backup" ? { vmId: job.vmId, vmName: job.vmName, pointId: job.pointId } : {}),
    ...(job.kind === "restore" ? { vmName: job.vmName, restored: job.restored } : {}),
  };
}
