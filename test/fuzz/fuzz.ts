import { isFailure } from "@holdfast/shared/domain/failure";
import { createChance, mutate } from "./mutate.ts";
import type { Target } from "./targets.ts";

/** A decoder may keep a copy of what it was given, and no more than this besides. */
const memoryBytesMax = 64 * 1024 * 1024;

export type FuzzProblem = {
  readonly target: string;
  readonly seed: number;
  readonly problem: string;
};

/** Gives changed bytes to every target in turn. What comes out must be a value, or a refusal that it is known to make. */
export function fuzz(
  targets: readonly Target[],
  o: { readonly runs: number; readonly seed: number },
): { readonly problems: readonly FuzzProblem[]; readonly refused: number } {
  const problems: FuzzProblem[] = [];
  let refused = 0;
  for (let run = 0; run < o.runs && problems.length < 20; run += 1) {
    const target = targets[run % targets.length];
    if (target === undefined) break;
    const seed = o.seed + run;
    const chance = createChance(seed);
    const example = target.examples[chance.below(target.examples.length)] ?? new Uint8Array(0);
    const bytes = mutate(example, chance);
    const before = memoryNow();
    try {
      target.decode(bytes);
    } catch (error) {
      if (isFailure(error) && target.refusals.includes(error.code)) refused += 1;
      else problems.push({ target: target.name, seed, problem: String(error) });
    }
    const grown = memoryNow() - before;
    if (grown > memoryBytesMax) {
      problems.push({ target: target.name, seed, problem: `took ${grown} bytes of memory` });
    }
  }
  return { problems, refused };
}

/** What was allocated outside of the heap counts at once, and nothing collects it within one call. */
function memoryNow(): number {
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  return arrayBuffers + heapUsed;
}
