import { type Medians, say } from "./measure.ts";

/** What all sections share. */
export type Bench = {
  /** For images and repositories; removed at the end. */
  readonly folder: string;
  readonly rounds: number;
  /** Of what is started: passphrases, and where caches go. */
  readonly environment: NodeJS.ProcessEnv;
};

export function printWorks(
  title: string,
  medians: ReadonlyMap<string, Medians>,
  mebibytes: number,
): void {
  say(`\n### ${title}\n`);
  say("| work | s | CPU s | MiB/s | peak MiB |\n|---|---|---|---|---|");
  for (const [name, { seconds, cpuSeconds, peakMebibytes }] of medians) {
    const rate = (mebibytes / seconds).toFixed(0);
    say(
      `| ${name} | ${seconds.toFixed(2)} | ${cpuSeconds.toFixed(2)} | ${rate} | ${peakMebibytes.toFixed(0)} |`,
    );
  }
}

/** Speed of one work over that of another, and what is aimed at (the project's issue 3). */
export type Ratio = { readonly ours: string; readonly theirs: string; readonly goal?: number };

export function printRatios(medians: ReadonlyMap<string, Medians>, ratios: readonly Ratio[]): void {
  say("\n| work | against | speed | by CPU time | goal |\n|---|---|---|---|---|");
  for (const { ours, theirs, goal } of ratios) {
    const [mine, other] = [medians.get(ours), medians.get(theirs)];
    if (mine === undefined || other === undefined) continue;
    const speed = (other.seconds / mine.seconds).toFixed(2);
    const cpu = (other.cpuSeconds / mine.cpuSeconds).toFixed(2);
    say(`| ${ours} | ${theirs} | ${speed} × | ${cpu} × | ${goal ? `${goal} ×` : ""} |`);
  }
}
