import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { mutants } from "./mutants.ts";
import { missedIn } from "./reachability.ts";
import { runSeed, type SeedResult } from "./world.ts";

/**
 * `npm run hunt`: many seeds over all cores. `--seed N --log` replays one. `--mutant N`: the protocol is broken by the Nth (from 0) of
 * mutants.ts; the more seeds fail the better. A seed that fails is printed with the end of its log; so is a fault or
 * a way of recovery that no seed has met: then the hunt proves less than it seems to.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    operations: { type: "string", default: "60" },
    seed: { type: "string" },
    mutant: { type: "string" },
    log: { type: "boolean", default: false },
    processes: { type: "string", default: String(availableParallelism()) },
    step: { type: "string", default: "1" },
  },
});

/** The ends of logs of so many failing seeds are printed. */
const tailsShownMax = 3;
const operations = Number(values.operations);
const mutant = values.mutant === undefined ? undefined : mutants[Number(values.mutant)];
const how = { operations, ...(mutant === undefined ? {} : { mutant }) };
const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

if (values.seed !== undefined) {
  const seed = Number(values.seed);
  const result = await runSeed({ seed, ...how, onLine: values.log ? print : undefined });
  tell(result, !values.log);
  process.exitCode = result.failure === undefined ? 0 : 1;
} else if (process.send !== undefined) {
  await work();
} else {
  await hunt();
}

/** A worker process: every so manieth seed; each hundredth runs twice and must be the same both times. */
async function work(): Promise<void> {
  const from = Number(values.from);
  const end = from + Number(values.seeds);
  for (let seed = from; seed < end; seed += Number(values.step)) {
    const result = await runSeed({ seed, ...how });
    const again = seed % 100 === 0 ? await runSeed({ seed, ...how }) : result;
    const isSame = again.logHash === result.logHash;
    const failure = isSame
      ? result.failure
      : (result.failure ?? {
          message: "two runs of this seed differ",
          isViolation: true,
          tail: [],
        });
    process.send?.({ ...result, failure, counts: [...result.counts] });
  }
  process.disconnect();
}

async function hunt(): Promise<void> {
  const step = Math.max(1, Number(values.processes));
  const from = Number(values.from);
  const seeds = Number(values.seeds);
  const startedMs = Date.now();
  const totals = new Map<string, number>();
  let done = 0;
  let steps = 0;
  const failed: number[] = [];

  function hear(result: SeedResult): void {
    done += 1;
    steps += result.steps;
    for (const [name, count] of result.counts) totals.set(name, (totals.get(name) ?? 0) + count);
    if (result.failure !== undefined) {
      failed.push(result.seed);
      tell(result, failed.length <= tailsShownMax);
    }
    if (done % 1000 === 0) print(`${done} of ${seeds} seeds, ${failed.length} failed`);
  }

  await Promise.all(
    Array.from({ length: Math.min(step, seeds) }, (_, worker) => {
      const count = seeds - worker;
      const its = { from: from + worker, seeds: count, step, operations };
      const args = Object.entries(its).flatMap(([name, value]) => [`--${name}`, String(value)]);
      if (values.mutant !== undefined) args.push("--mutant", values.mutant);
      const child = fork(new URL(import.meta.url), args);
      child.on("message", (message) => hear(message as SeedResult));
      return new Promise<void>((resolve, reject) => {
        child.on("error", reject);
        child.on("exit", (code) => {
          if (code === 0) resolve();
          else reject(new Error(`a process of the hunt ended with code ${code}`));
        });
      });
    }),
  );
  for (const [name, count] of [...totals].sort()) print(`${String(count).padStart(10)} ${name}`);
  const missed = missedIn(totals, seeds);
  for (const name of missed) print(`too seldom: ${name} (${totals.get(name) ?? 0})`);
  const seconds = (Date.now() - startedMs) / 1000;
  print(
    `${done} seeds from ${from}, ${operations} operations each, ${steps} steps, ${seconds.toFixed(0)} s: ${failed.length === 0 ? "none failed" : `${failed.length} failed: ${failed.join(" ")}`}`,
  );
  process.exitCode = failed.length > 0 || missed.length > 0 ? 1 : 0;
}

function tell(result: SeedResult, withTail: boolean): void {
  if (result.failure === undefined) {
    print(`seed ${result.seed}: ${result.steps} steps, all is well, log ${result.logHash}`);
    return;
  }
  if (withTail) for (const line of result.failure.tail) print(line);
  print(`seed ${result.seed} failed: ${result.failure.message}`);
  print(`  replay: npm run hunt -- --seed ${result.seed} --operations ${operations} --log`);
}
