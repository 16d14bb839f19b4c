import { createHash } from "node:crypto";
import {
  type BackupJob,
  type InspectJob,
  type Job,
  jobStatesEnded,
  type RestoreJob,
} from "@holdfast/shared/contracts/catalog-items";
import { asFailure, Failure, isFailure, toFailureRecord } from "@holdfast/shared/domain/failure";
import { newSortableId } from "@holdfast/shared/domain/ids";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import type { Workflows } from "@holdfast/shared/ports/workflows";
import { recoverJob } from "./recover-job.ts";

/**
 * Starting a job: its item, for a backup the VM's lock, then its workflow under the job's own id. Every step may be
 * repeated. A job whose workflow cannot be started ends as failed at once, and holds nothing.
 */
export type StartServices = {
  readonly catalog: Catalog;
  readonly workflows: Workflows;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly siteQueueUrl: (siteId: string) => string;
};

type Started = "jobId" | "state" | "createdAt" | "warnings";
export type NewJob =
  | Omit<BackupJob, Started>
  | Omit<RestoreJob, Started>
  | Omit<InspectJob, Started>;

/**
 * With a `jobId` that exists already, answers with that job as it is now; `conflict` if it is another piece of work.
 * A backup of a VM that another job holds is `busy`, and leaves no job behind.
 */
export async function startJob(
  wanted: NewJob,
  services: StartServices,
  jobId = newSortableId(services.clock.now(), services.random),
): Promise<Job> {
  const { catalog, clock } = services;
  const job: Job = {
    ...wanted,
    jobId,
    state: "queued",
    createdAt: new Date(clock.now()).toISOString(),
    warnings: [],
  };
  const there = (await findJob(jobId, catalog)) ?? (await createJob(job, services));
  if (there !== undefined) {
    if (workOf(there) !== workOf(job)) {
      throw new Failure("conflict", {
        message: `the Idempotency-Key was used for other work, job ${jobId}`,
        jobId,
      });
    }
    if (there.state !== "queued") return there;
  }
  try {
    if (job.kind === "backup") await takeVm(job.vmId, jobId, services);
    await startWorkflow(job, services);
  } catch (error) {
    // A job that was there before may run by now: only its lost VM is a reason to end it.
    if (there === undefined || isFailure(error, "busy")) await giveUp(job, error, services);
    throw error;
  }
  return catalog.getJob(jobId);
}

async function findJob(jobId: string, catalog: Catalog): Promise<Job | undefined> {
  try {
    return await catalog.getJob(jobId);
  } catch (error) {
    if (isFailure(error, "not-found")) return undefined;
    throw error;
  }
}

/** The twin, when a request with the same id was faster. */
async function createJob(job: Job, services: StartServices): Promise<Job | undefined> {
  if (job.kind === "backup") {
    const { lock } = await services.catalog.getVm(job.vmId);
    if (lock !== undefined && lock.jobId !== job.jobId) {
      await releaseStaleLock(job.vmId, lock.jobId, services);
    }
  }
  try {
    await services.catalog.createJob(job);
    return undefined;
  } catch (error) {
    if (isFailure(error, "conflict")) return services.catalog.getJob(job.jobId);
    throw error;
  }
}

/** Repeats the start of a job that may have been left between its item and its workflow; no change if it runs. */
export async function startWorkflow(job: Job, services: StartServices): Promise<void> {
  const { jobId } = job;
  try {
    await services.workflows.start(job, { jobId, siteQueueUrl: services.siteQueueUrl(job.siteId) });
  } catch (error) {
    throw asFailure(error, "aws.failed", `job ${jobId} could not be started`);
  }
}

/**
 * Takes the VM's lock for a job. A lock whose job has ended, or whose workflow has ended without ending the job,
 * is taken over; its fence keeps the old holder out. Otherwise `busy`, naming the holder.
 */
export async function takeVm(
  vmId: string,
  jobId: string,
  services: StartServices,
): Promise<number> {
  const { catalog } = services;
  try {
    return await catalog.lockVm(vmId, jobId);
  } catch (error) {
    if (!isFailure(error, "busy")) throw error;
    await releaseStaleLock(vmId, String(error.details["jobId"]), services);
    return await catalog.lockVm(vmId, jobId);
  }
}

/** Fails with `busy` unless the holder has ended. */
async function releaseStaleLock(
  vmId: string,
  holderId: string,
  services: StartServices,
): Promise<void> {
  if (!(await hasEnded(holderId, services))) {
    throw new Failure("busy", {
      message: `VM ${vmId} is held by job ${holderId}`,
      jobId: holderId,
    });
  }
  await services.catalog.unlockVm(vmId, holderId);
}

/**
 * Whether a job has ended. One without a workflow gets it; one whose workflow has ended without ending the job is
 * cleaned up after, and has ended when that has. A job that isn't in the catalog holds nothing: it was there before it took its VM.
 */
export async function hasEnded(jobId: string, services: StartServices): Promise<boolean> {
  const { catalog, workflows } = services;
  const job = await findJob(jobId, catalog);
  if (job === undefined || jobStatesEnded.includes(job.state)) return true;
  const state = await workflows.state(job);
  switch (state) {
    case "running":
      return false;
    case "absent":
      await startWorkflow(job, services);
      return false;
    case "orphaned":
      return !(await recoverJob(job, orphaned, services));
    case "ended":
      await endForgotten(job, services);
      return true;
    default:
      return state satisfies never;
  }
}

const orphaned = {
  Error: "HoldfastOrphaned",
  Cause: "the job's workflow ended without an outcome",
};

/** Even the clean-up ended without ending the job: what it left is for the VM's next job. */
async function endForgotten(job: Job, { catalog, clock }: StartServices): Promise<void> {
  const { jobId } = job;
  const now = await catalog.getJob(jobId);
  if (jobStatesEnded.includes(now.state)) return;
  await catalog.updateJob(jobId, {
    state: "failed",
    endedAt: new Date(clock.now()).toISOString(),
    failure: {
      code: "internal",
      message: "the job's workflow ended without an outcome; the next job cleans up after it",
      causes: [],
    },
  });
  if (job.kind === "backup") await catalog.unlockVm(job.vmId, jobId);
}

async function giveUp(job: Job, error: unknown, { catalog, clock }: StartServices): Promise<void> {
  const { code, message, causes } = toFailureRecord(error);
  try {
    await catalog.updateJob(job.jobId, {
      state: "failed",
      endedAt: new Date(clock.now()).toISOString(),
      failure: { code, message, causes: [...causes] },
    });
    if (job.kind === "backup") await catalog.unlockVm(job.vmId, job.jobId);
  } catch (second) {
    // The job stays queued and gets its workflow when its VM is next asked for; the first error is the one to hear.
    const also = second instanceof Error ? second.message : String(second);
    throw new Failure(code, {
      message: `${message}; nor could the job's record be changed: ${also}`,
      cause: error,
    });
  }
}

/** What tells two pieces of work apart: not when, and not how far it got. */
function workOf(job: Job): string {
  switch (job.kind) {
    case "backup":
      return JSON.stringify([job.kind, job.vmId, job.repositoryId, job.full]);
    case "restore":
      return JSON.stringify([job.kind, Object.entries(job.restore).toSorted()]);
    case "inspect":
      return JSON.stringify([job.kind, job.providerId, job.mode]);
    default:
      return job satisfies never;
  }
}

/** A job id that the same parts always give. With a time, it sorts among the others of that time. */
export function derivedJobId(parts: readonly string[], timeMs?: number): string {
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 24);
  return timeMs === undefined ? `k-${hash}` : `${timeMs.toString(36).padStart(9, "0")}-${hash}`;
}
