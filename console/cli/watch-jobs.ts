import type { JobDetail } from "@holdfast/shared/contracts/api";
import { type Job, jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { failureId, failureKind, isFailure, isFailureCode } from "@holdfast/shared/domain/failure";
import type { ApiClient } from "./api-client.ts";
import type { Context } from "./context.ts";
import { type ExitCode, exitCodeOf, exitCodes } from "./exit-codes.ts";
import { failureFromRecord } from "./remote-failure.ts";
import {
  formatBytes,
  formatDuration,
  formatRate,
  formatRatio,
  printable,
} from "./render/format.ts";
import { createReporter, note, type ReportedDisk, type Reporter } from "./report.ts";

const pollIntervalMs = 500;
/** The API may be restarted meanwhile; after this long without an answer the watcher gives up, never the job. */
const silenceMsMax = 60_000;

/**
 * Follows jobs until all have ended. Watching is all it does: Ctrl-C, the time limit or a lost connection
 * end the watching (exit code 9), and the jobs go on.
 */
export async function watchJobs(
  context: Context,
  api: ApiClient,
  jobIds: readonly string[],
): Promise<ExitCode> {
  const reporter = createReporter(context);
  const ended = new Map<string, JobDetail>();
  const memory = new Map<string, JobMemory>();
  const stop = new AbortController();
  using _interrupt = context.onInterrupt(() => stop.abort());
  const deadline = context.clock.now() + (context.settings.timeoutMs ?? Number.POSITIVE_INFINITY);
  while (ended.size < jobIds.length) {
    const disks: ReportedDisk[] = [];
    for (const jobId of jobIds) {
      const known = ended.get(jobId);
      const detail = known ?? (await readPatiently(context, api, jobId, stop.signal, deadline));
      if (detail === undefined) break;
      if (known === undefined) reportChanges(reporter, detail, memory);
      if (jobStatesEnded.includes(detail.job.state)) ended.set(jobId, detail);
      disks.push(...disksOf(detail));
    }
    reporter.progress(disks);
    if (ended.size === jobIds.length) break;
    const isOver = stop.signal.aborted || context.clock.now() >= deadline;
    if (isOver) {
      reporter.end();
      sayDetached(
        context,
        jobIds.filter((jobId) => !ended.has(jobId)),
      );
      return exitCodes.stoppedWaiting.code;
    }
    await context.clock.sleep(pollIntervalMs, stop.signal).catch(() => undefined);
  }
  reporter.end();
  const details = [...ended.values()];
  for (const detail of details) reportEnd(context, reporter, detail);
  return combine(details.map(({ job }) => exitCodeOfJob(job)));
}

type JobMemory = { stage: string | undefined; readonly warnings: Set<string> };

async function readPatiently(
  context: Context,
  api: ApiClient,
  jobId: string,
  signal: AbortSignal,
  deadline: number,
): Promise<JobDetail | undefined> {
  const silentSince = context.clock.now();
  for (;;) {
    try {
      return await api.call("getJob", { id: jobId, signal });
    } catch (error) {
      if (signal.aborted) return undefined;
      const isTemporary = isFailure(error) && error.code.startsWith("network.");
      const now = context.clock.now();
      if (!isTemporary || now - silentSince > silenceMsMax) throw error;
      if (now >= deadline) return undefined;
      await context.clock.sleep(1000, signal).catch(() => undefined);
    }
  }
}

function reportChanges(
  reporter: Reporter,
  { job, log }: JobDetail,
  memory: Map<string, JobMemory>,
): void {
  let seen = memory.get(job.jobId);
  if (seen === undefined) {
    seen = { stage: undefined, warnings: new Set() };
    memory.set(job.jobId, seen);
    reporter.started(job.jobId, "vmName" in job ? job.vmName : undefined);
  }
  const stage = jobStatesEnded.includes(job.state) ? undefined : job.stage;
  if (stage !== seen.stage) {
    if (seen.stage !== undefined) reporter.stage(job.jobId, seen.stage, "finished");
    if (stage !== undefined) reporter.stage(job.jobId, stage, "started");
    seen.stage = stage;
  }
  const fromLog = log.filter(({ level }) => level !== "info").map(({ message }) => message);
  for (const message of [...fromLog, ...job.warnings]) {
    if (seen.warnings.has(message)) continue;
    seen.warnings.add(message);
    reporter.warning(job.jobId, message);
  }
}

function disksOf({ job, progress }: JobDetail): readonly ReportedDisk[] {
  const vm = "vmName" in job ? job.vmName : undefined;
  return progress.map((disk) => ({
    job: job.jobId,
    ...(vm === undefined ? {} : { vm }),
    key: disk.diskKey,
    disk: vm === undefined ? disk.diskKey : `${vm} ${disk.diskKey}`,
    stage: disk.finished ? disk.mode : `${disk.mode}${job.stage ? `, ${job.stage}` : ""}`,
    bytesDone: disk.bytesDone,
    bytesTotal: disk.bytesTotal,
    isFinished: disk.finished,
  }));
}

function reportEnd(context: Context, reporter: Reporter, detail: JobDetail): void {
  const { job } = detail;
  if (job.failure !== undefined) reporter.error(job.jobId, failureFromRecord(job.failure));
  reporter.finished(job.jobId, { state: job.state, result: { ...job } });
  if (context.settings.json) return;
  if (job.state === "failed" || job.state === "cancelled") {
    context.stderr.write(failureText(job));
  } else {
    context.stdout.write(`${outcomeText(detail)}\n`);
  }
}

/** What came of a job that succeeded, on one line. */
export function outcomeText({ job, progress }: JobDetail): string {
  const warned = job.state === "warnings" ? ` with ${job.warnings.length} warning(s)` : "";
  switch (job.kind) {
    case "backup": {
      const point = job.pointId === undefined ? "" : `recovery point ${job.pointId}, `;
      return printable(
        `${job.vmName}: backed up${warned}: ${point}${sizesText(detailSums({ job, progress }))}`,
      );
    }
    case "restore":
      return printable(
        `${job.restored?.name ?? job.vmName}: restored${warned} as ${job.restored?.externalId ?? "?"}${
          job.restored?.started === true ? ", started" : ""
        }, in ${formatDuration(secondsOf(job))}`,
      );
    case "inspect":
      return printable(
        job.mode === "sync"
          ? `${job.providerId}: synced${warned}, ${job.vmsSeen ?? 0} VM(s) seen`
          : `${job.providerId}: tested${warned}, ${job.findings?.length ?? 0} check(s)`,
      );
    default:
      return job satisfies never;
  }
}

export type TransferSums = {
  readonly sizeBytes: number;
  readonly bytesRead: number;
  readonly bytesNew: number;
  readonly bytesStored: number;
  readonly seconds: number | undefined;
};

function detailSums({ job, progress }: Pick<JobDetail, "job" | "progress">): TransferSums {
  const sum = (pick: (disk: JobDetail["progress"][number]) => number): number =>
    progress.reduce((total, disk) => total + pick(disk), 0);
  return {
    sizeBytes: sum((disk) => disk.sizeBytes),
    bytesRead: sum((disk) => disk.bytesRead),
    bytesNew: sum((disk) => disk.bytesNew),
    bytesStored: sum((disk) => disk.bytesStored),
    seconds: secondsOf(job),
  };
}

export function sizesText(sums: TransferSums): string {
  const rate =
    sums.seconds === undefined || sums.seconds === 0 ? undefined : sums.bytesRead / sums.seconds;
  return [
    `scanned ${formatBytes(sums.sizeBytes)}`,
    `read ${formatBytes(sums.bytesRead)}`,
    `new ${formatBytes(sums.bytesNew)}`,
    `stored ${formatBytes(sums.bytesStored)}`,
    `${formatDuration(sums.seconds)} (${formatRate(rate)})`,
    `dedup ${formatRatio(sums.sizeBytes, sums.bytesStored)}`,
  ].join(", ");
}

export function secondsOf(job: Job): number | undefined {
  if (job.endedAt === undefined) return undefined;
  return Math.max(0, (Date.parse(job.endedAt) - Date.parse(job.startedAt ?? job.createdAt)) / 1000);
}

/** Id, message and advice of a job that did not succeed. */
export function failureText(job: Job): string {
  const subject = "vmName" in job ? job.vmName : job.providerId;
  if (job.failure === undefined)
    return printable(`${subject}: job ${job.jobId} ${job.state}`).concat("\n");
  const failure = failureFromRecord(job.failure);
  const causes = job.failure.causes
    .filter((cause) => !failure.message.includes(cause))
    .map((cause) => `  Cause: ${printable(cause)}\n`);
  const head = printable(`${failureId(failure.code)}: ${subject}: ${failure.message}`);
  const advice = failureKind(failure.code).advice;
  return `${head}\n${causes.join("")}  Next:  ${advice}\n  Log:   holdfast job show ${job.jobId}\n`;
}

export function exitCodeOfJob(job: Job): ExitCode {
  switch (job.state) {
    case "succeeded":
      return exitCodes.done.code;
    case "warnings":
      return exitCodes.warnings.code;
    case "cancelled":
      return exitCodes.cancelled.code;
    case "failed": {
      const code = job.failure?.code ?? "";
      return isFailureCode(code)
        ? exitCodeOf({ code, message: "", causes: [] })
        : exitCodes.failed.code;
    }
    default:
      return exitCodes.stoppedWaiting.code;
  }
}

/** One job's code is the answer; of several, some failing is `warnings`, all failing is the first's code. */
export function combine(codes: readonly ExitCode[]): ExitCode {
  const [first = exitCodes.done.code] = codes;
  if (codes.every((code) => code === first)) return first;
  const isGood = (code: ExitCode): boolean =>
    code === exitCodes.done.code || code === exitCodes.warnings.code;
  return codes.some(isGood) ? exitCodes.warnings.code : first;
}

function sayDetached(context: Context, jobIds: readonly string[]): void {
  const goesOn = jobIds.length === 1 ? "the job goes on" : "the jobs go on";
  note(context, `Stopped watching; ${goesOn}. To watch again or to stop:`);
  for (const jobId of jobIds) {
    note(context, `  holdfast job watch ${jobId}\n  holdfast job cancel ${jobId}`);
  }
}
