import { spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { succeeds } from "../testbeds/run.ts";

/** Runs programs and says what they took; for all benchmarks. */
export type Run = {
  readonly seconds: number;
  /** User and system time of the program and of all that it started and waited for. */
  readonly cpuSeconds: number;
  /** The highest resident memory of any one of its processes as the kernel counted it. */
  readonly peakMebibytes: number;
  readonly stdout: string;
};

export const mebibyte = 1024 ** 2;
export const say = (line: string): void => void process.stdout.write(`${line}\n`);
export const complain = (line: string): void => void process.stderr.write(`${line}\n`);

const here = dirname(fileURLToPath(import.meta.url));
const cli = join(here, "../../console/cli/bin/holdfast.mjs");

export function holdfast(...args: readonly string[]): readonly string[] {
  return [process.execPath, cli, ...args];
}

/** A program of this folder. */
export function ownProgram(name: string, ...args: readonly string[]): readonly string[] {
  return [process.execPath, join(here, name), ...args];
}

/** Fails when the program does. */
export async function measure(
  [program = "", ...args]: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<Run> {
  const cpuBefore = await childrenCpuSeconds();
  const started = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString("utf8")).slice(-2000);
  });
  let stdout = "";
  child.stdout.on("data", (chunk: Buffer) => {
    if (stdout.length < 100_000) stdout += chunk.toString("latin1");
  });
  let peakMebibytes = 0;
  const watch = setInterval(() => {
    void peakOfTree(child.pid ?? 0).then((peak) => {
      peakMebibytes = Math.max(peakMebibytes, peak);
    });
  }, 50);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  clearInterval(watch);
  const seconds = (performance.now() - started) / 1000;
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${errors}`);
  const cpuSeconds = (await childrenCpuSeconds()) - cpuBefore;
  return { seconds, cpuSeconds, peakMebibytes, stdout };
}

/** Of the children that have ended, which Linux counts in ticks of 10 ms. */
async function childrenCpuSeconds(): Promise<number> {
  const stat = await readFile("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

async function peakOfTree(pid: number): Promise<number> {
  const own = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const peak = Number(/VmHWM:\s+(\d+)/.exec(own)?.[1] ?? 0) / 1024;
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  const others = await Promise.all(
    children
      .split(" ")
      .filter(Boolean)
      .map((id) => peakOfTree(Number(id))),
  );
  return Math.max(peak, ...others);
}

export function median(values: readonly number[]): number {
  return (
    values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN
  );
}

/** `before` is not measured. `needs` is a program that may be missing. */
export type Work = {
  readonly name: string;
  readonly needs?: string;
  readonly before?: () => Promise<void>;
  readonly command: () => Promise<readonly string[]>;
};

export type Medians = {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMebibytes: number;
};

/** All works take turns in every round, so that a busy machine harms all alike. */
export async function takeTurns(
  works: readonly Work[],
  rounds: number,
  environment: NodeJS.ProcessEnv,
): Promise<ReadonlyMap<string, Medians>> {
  const present = await available(works);
  const runs = new Map<string, Run[]>(present.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const work of present) {
      await work.before?.();
      runs.get(work.name)?.push(await measure(await work.command(), environment));
    }
  }
  return new Map(
    [...runs].map(([name, all]) => [
      name,
      {
        seconds: median(all.map((run) => run.seconds)),
        cpuSeconds: median(all.map((run) => run.cpuSeconds)),
        peakMebibytes: Math.max(...all.map((run) => run.peakMebibytes)),
      },
    ]),
  );
}

async function available(works: readonly Work[]): Promise<readonly Work[]> {
  const missing = new Set<string>();
  for (const needs of new Set(works.flatMap((work) => work.needs ?? []))) {
    if (await succeeds("which", [needs])) continue;
    missing.add(needs);
    complain(`${needs} is not installed: left out`);
  }
  return works.filter(({ needs }) => needs === undefined || !missing.has(needs));
}

export async function remove(...paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { recursive: true, force: true });
}

/** The id of the newest point of a repository. */
export async function newestPoint(
  repository: string,
  environment: NodeJS.ProcessEnv,
): Promise<string> {
  const command = holdfast("image", "points", "--repository", repository, "--json");
  const { stdout } = await measure(command, environment);
  return /"pointId":"([^"]+)"/.exec(stdout)?.[1] ?? "";
}
