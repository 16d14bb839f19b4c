import type { ErrorDocument, JobEvent } from "@holdfast/shared/contracts/events";
import { failureId, failureKind, toFailureRecord } from "@holdfast/shared/domain/failure";
import type { Context } from "./context.ts";
import { type ExitCode, exitCodeOf } from "./exit-codes.ts";
import { printable } from "./render/format.ts";
import type { TextOutput } from "./render/output.ts";
import { createPaceMeter, createProgressDisplay, type DiskMotion } from "./render/progress.ts";
import { renderFields, renderTable, type Table } from "./render/table.ts";

/** Results: one JSON document under --json, else text. */
export function printResult(
  context: Context,
  document: unknown,
  text: (forPeople: boolean) => string,
): void {
  const { settings, stdout } = context;
  stdout.write(settings.json ? `${JSON.stringify(document)}\n` : text(stdout.isTerminal));
}

export function printTable(context: Context, document: unknown, table: Table): void {
  printResult(context, document, (forPeople) => renderTable(table, { forPeople }));
}

export function printFields(
  context: Context,
  document: unknown,
  fields: readonly (readonly [string, string])[],
): void {
  printResult(context, document, (forPeople) => renderFields(fields, { forPeople }));
}

/** A remark for people, on stderr: what happened, which command comes next. */
export function note(context: Context, text: string): void {
  if (!context.settings.quiet && !context.settings.json) context.stderr.write(`${text}\n`);
}

/** What went wrong, why as far as known, and what to do about it. Returns the exit code. */
export function printError(
  error: unknown,
  output: TextOutput,
  options: { readonly json: boolean },
): ExitCode {
  const record = toFailureRecord(error);
  const exitCode = exitCodeOf(record);
  const { advice } = failureKind(record.code);
  if (options.json) {
    const document: ErrorDocument = {
      v: 1,
      type: "error",
      id: failureId(record.code),
      code: record.code,
      message: record.message,
      causes: [...record.causes],
      advice,
      exitCode,
    };
    output.write(`${JSON.stringify(document)}\n`);
    return exitCode;
  }
  output.write(`${failureId(record.code)}: ${printableLines(record.message)}\n`);
  // A cause that the message quotes already says nothing new.
  for (const cause of record.causes.filter((text) => !record.message.includes(text))) {
    output.write(`  Cause: ${printableLines(cause)}\n`);
  }
  output.write(`  Next:  ${advice}\n`);
  return exitCode;
}

const printableLines = (text: string): string => text.split("\n").map(printable).join("\n  ");

/** Tells what happens in running jobs: to people on stderr, under --json as events on stdout. */
export type Reporter = {
  started(job: string, vm?: string): void;
  stage(job: string, stage: string, change: "started" | "finished"): void;
  progress(disks: readonly ReportedDisk[]): void;
  warning(job: string, message: string): void;
  finished(
    job: string,
    end: { readonly state: string; readonly result?: JobEvent["result"] },
  ): void;
  error(job: string, error: unknown): void;
  /** The last picture of the progress stays; nothing more is drawn. */
  end(): void;
};

export type ReportedDisk = DiskMotion & {
  readonly job: string;
  readonly vm?: string;
  readonly key: string;
};

export function createReporter(context: Context): Reporter {
  return context.settings.json ? createEventReporter(context) : createPeopleReporter(context);
}

function createPeopleReporter(context: Context): Reporter {
  const { stderr, clock, settings } = context;
  const meter = createPaceMeter(clock);
  const framesPerSecond = settings.quiet ? 0 : readFramesPerSecond(context);
  const display = createProgressDisplay({
    output: stderr,
    clock,
    ...(framesPerSecond === undefined ? {} : { framesPerSecond }),
  });
  return {
    started: () => undefined,
    stage: () => undefined,
    progress: (disks) => display.show(disks.map((disk) => meter.measure(disk))),
    warning: (_job, message) => display.say(`Warning: ${printable(message)}`),
    finished: () => undefined,
    error: () => undefined,
    end: () => display.end(),
  };
}

function createEventReporter(context: Context): Reporter {
  const { stdout, clock } = context;
  const meter = createPaceMeter(clock);
  const intervalMs = 1000 / (readFramesPerSecond(context) || 1);
  const last = new Map<string, { at: number; line: string }>();
  const emit = (event: Omit<JobEvent, "v" | "time">): void => {
    const { type, ...rest } = event;
    const whole: JobEvent = { v: 1, type, time: new Date(clock.now()).toISOString(), ...rest };
    stdout.write(`${JSON.stringify(whole)}\n`);
  };
  const progress = (disk: ReportedDisk): void => {
    const seen = last.get(disk.disk);
    const line = `${disk.stage} ${disk.bytesDone} ${disk.bytesTotal} ${disk.isFinished}`;
    const { rate, etaSeconds } = meter.measure(disk);
    const isDue = seen === undefined || disk.isFinished || clock.now() - seen.at >= intervalMs;
    if (seen?.line === line || !isDue) return;
    last.set(disk.disk, { at: clock.now(), line });
    emit({
      type: "stage.progress",
      job: disk.job,
      ...(disk.vm === undefined ? {} : { vm: disk.vm }),
      stage: disk.stage,
      disk: disk.key,
      bytesDone: disk.bytesDone,
      bytesTotal: disk.bytesTotal,
      ...(rate === undefined ? {} : { rate }),
      ...(etaSeconds === undefined ? {} : { etaSeconds }),
    });
  };
  return {
    started: (job, vm) => emit({ type: "job.started", job, ...(vm === undefined ? {} : { vm }) }),
    stage: (job, stage, change) => emit({ type: `stage.${change}`, job, stage }),
    progress: (disks) => disks.forEach(progress),
    warning: (job, message) => emit({ type: "warning", job, message }),
    finished: (job, { state, result }) =>
      emit({ type: "job.finished", job, state, ...(result === undefined ? {} : { result }) }),
    error: (job, error) => {
      const { code, message } = toFailureRecord(error);
      emit({ type: "error", job, id: failureId(code), message });
    },
    end: () => undefined,
  };
}

/** HOLDFAST_PROGRESS_FPS: pictures a second, also below one; undefined when unset or not a number. */
function readFramesPerSecond(context: Context): number | undefined {
  const value = Number.parseFloat(context.environment["HOLDFAST_PROGRESS_FPS"] ?? "");
  return Number.isFinite(value) && value >= 0 ? Math.min(value, 60) : undefined;
}
