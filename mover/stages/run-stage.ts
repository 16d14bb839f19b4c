import type { Job } from "@holdfast/shared/contracts/catalog-items";
import type { Task } from "@holdfast/shared/contracts/tasks";
import { Failure } from "@holdfast/shared/domain/failure";
import { exportMetadata } from "./export-metadata.ts";
import { abandonRestore, finishRestore } from "./finish-restore.ts";
import { inspect } from "./inspect.ts";
import { prepareRestore } from "./prepare-restore.ts";
import { release } from "./release.ts";
import { restoreOneDisk } from "./restore-disk.ts";
import { snapshot } from "./snapshot.ts";
import type { StageContext, StageResult } from "./stage.ts";
import { transferOneDisk } from "./transfer-disk.ts";
import { writeRecoveryPoint } from "./write-recovery-point.ts";

/** A task's kind decides the stage, which must fit the job's kind. */
export async function runStage(context: StageContext, task: Task): Promise<StageResult> {
  const { job } = context;
  if (job.state === "cancelling" && task.kind !== "release" && task.kind !== "abandon-restore") {
    throw new Failure("cancelled", { message: "the job was cancelled" });
  }
  await context.catalog.updateJob(job.jobId, { stage: task.kind });
  switch (task.kind) {
    case "inspect":
      return inspect(context, expectKind(job, "inspect"));
    case "snapshot":
      return snapshot(context, expectKind(job, "backup"));
    case "export-metadata":
      return exportMetadata(context, expectKind(job, "backup"));
    case "transfer-disk":
      return transferOneDisk(context, expectKind(job, "backup"), task.diskKey);
    case "write-recovery-point":
      return writeRecoveryPoint(context, expectKind(job, "backup"));
    case "release":
      return release(context, expectKind(job, "backup"), task.outcome);
    case "prepare-restore":
      return prepareRestore(context, expectKind(job, "restore"));
    case "restore-disk":
      return restoreOneDisk(context, expectKind(job, "restore"), task.diskKey);
    case "finish-restore":
      return finishRestore(context, expectKind(job, "restore"));
    case "abandon-restore":
      return abandonRestore(context, expectKind(job, "restore"));
    default:
      return task satisfies never;
  }
}

function expectKind<Kind extends Job["kind"]>(job: Job, kind: Kind): Extract<Job, { kind: Kind }> {
  if (job.kind === kind) return job as Extract<Job, { kind: Kind }>;
  throw new Failure("internal", { message: `job ${job.jobId} is a ${job.kind} job, not ${kind}` });
}
