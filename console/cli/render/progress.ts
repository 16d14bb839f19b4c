import type { Clock } from "@holdfast/shared/ports/clock";
import { formatBytes, formatDuration, formatRate, printable } from "./format.ts";
import type { TextOutput } from "./output.ts";

/** One disk in motion, as it was last heard of. */
export type DiskMotion = {
  /** What tells it from the others: `web1 vda`. */
  readonly disk: string;
  readonly stage: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly isFinished: boolean;
};

export type DiskPace = DiskMotion & {
  /** Bytes a second over the last seconds; undefined until two moments are known. */
  readonly rate: number | undefined;
  readonly etaSeconds: number | undefined;
};

/** Rates over a sliding window, so that a stall shows within seconds and a burst does not promise too much. */
export function createPaceMeter(clock: Clock, windowMs = 15_000) {
  const samples = new Map<string, { at: number; bytes: number }[]>();
  return {
    measure(disk: DiskMotion): DiskPace {
      const now = clock.now();
      const seen = samples.get(disk.disk) ?? [];
      seen.push({ at: now, bytes: disk.bytesDone });
      while (seen.length > 2 && (seen[0]?.at ?? now) < now - windowMs) seen.shift();
      samples.set(disk.disk, seen);
      const first = seen[0];
      const elapsedMs = first === undefined ? 0 : now - first.at;
      if (first === undefined || elapsedMs <= 0)
        return { ...disk, rate: undefined, etaSeconds: undefined };
      const rate = Math.max(0, ((disk.bytesDone - first.bytes) * 1000) / elapsedMs);
      const left = Math.max(0, disk.bytesTotal - disk.bytesDone);
      const etaSeconds = left === 0 ? 0 : rate > 0 ? left / rate : undefined;
      return { ...disk, rate, etaSeconds };
    },
  };
}

export type ProgressDisplay = {
  /** The whole picture; drawn when it is time to. */
  show(disks: readonly DiskPace[]): void;
  /** A line that stays. */
  say(text: string): void;
  /** Draws the last picture and leaves it standing. */
  end(): void;
};

const linesMax = 24;

/**
 * On a terminal one line per disk, redrawn in place. In a pipe a line per disk each 30 seconds.
 * `framesPerSecond` (HOLDFAST_PROGRESS_FPS) sets both; 0 shows no progress at all.
 */
export function createProgressDisplay(options: {
  readonly output: TextOutput;
  readonly clock: Clock;
  readonly framesPerSecond?: number;
}): ProgressDisplay {
  const { output, clock } = options;
  const framesPerSecond = options.framesPerSecond ?? (output.isTerminal ? 10 : 1 / 30);
  const isShown = framesPerSecond > 0;
  const intervalMs = isShown ? 1000 / framesPerSecond : 0;
  // In a pipe the first line comes after one interval: short jobs stay quiet.
  let drawnAt = output.isTerminal ? Number.NEGATIVE_INFINITY : clock.now();
  let linesDrawn = 0;
  let pending: readonly DiskPace[] = [];

  const erase = (): void => {
    if (linesDrawn > 0) output.write(`\u001b[${linesDrawn}A\u001b[J`);
    linesDrawn = 0;
  };
  const draw = (): void => {
    if (output.isTerminal) {
      erase();
      const shown = pending.slice(0, linesMax);
      for (const disk of shown) output.write(`${progressLine(disk, output.columns)}\n`);
      linesDrawn = shown.length;
    } else {
      for (const disk of pending) output.write(`${progressLine(disk, undefined)}\n`);
    }
    drawnAt = clock.now();
    pending = output.isTerminal ? pending : [];
  };

  return {
    show: (disks) => {
      pending = disks;
      if (isShown && disks.length > 0 && clock.now() - drawnAt >= intervalMs) draw();
    },
    say: (text) => {
      erase();
      output.write(`${text}\n`);
      if (output.isTerminal && isShown) draw();
    },
    end: () => {
      if (output.isTerminal && isShown && pending.length > 0) draw();
      pending = [];
      linesDrawn = 0;
    },
  };
}

/** One disk on one line; a bar when there is room for it. */
export function progressLine(disk: DiskPace, columns: number | undefined): string {
  const share = disk.bytesTotal === 0 ? 1 : Math.min(1, disk.bytesDone / disk.bytesTotal);
  // Never 100 % before it is over.
  const percent = disk.isFinished ? 100 : Math.min(99, Math.floor(share * 100));
  const numbers = [
    `${String(percent).padStart(3)}%`,
    `${formatBytes(disk.bytesDone)} of ${formatBytes(disk.bytesTotal)}`,
    formatRate(disk.rate),
    endText(disk),
    printable(disk.stage),
  ]
    .filter((text) => text !== "")
    .join("  ");
  const name = printable(disk.disk);
  const barWidth =
    columns === undefined ? 0 : Math.min(24, columns - name.length - numbers.length - 6);
  if (barWidth < 8) return fit(`${name}  ${numbers}`, columns);
  const filled = Math.round(share * barWidth);
  return fit(
    `${name}  [${"#".repeat(filled)}${".".repeat(barWidth - filled)}] ${numbers}`,
    columns,
  );
}

function endText({ isFinished, etaSeconds }: DiskPace): string {
  if (isFinished) return "done";
  return etaSeconds === undefined ? "" : `${formatDuration(etaSeconds)} left`;
}

function fit(line: string, columns: number | undefined): string {
  return columns === undefined || line.length < columns
    ? line
    : line.slice(0, Math.max(0, columns - 1));
}
