import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Mutant, mutants, onlySlow } from "./mutants.ts";
import { runSeed } from "./world.ts";

/** `npm run hunt` runs thousands; these show on every change that nothing common is broken. */
const seeds = 100;
const seedFirst = 100;
const operations = 60;
const mutantSeedsMax = 12;
/** Half a second of work for a seed; a busy machine has other things to do. */
const timeout = 1_800_000;

describe("simulation of the repository", () => {
  test("points stay whole, garbage goes, everything ends: whatever the seed", {
    timeout,
  }, async () => {
    for (let seed = seedFirst; seed < seedFirst + seeds; seed += 1) {
      const { failure } = await runSeed({ seed, operations });
      expect(failure && `npm run hunt -- --seed ${seed} --log: ${failure.message}`).toBe(undefined);
    }
  });

  test("a seed is one history: the same log every time", { timeout }, async () => {
    const [first, second, other] = [
      await runSeed({ seed: 77, operations: 30 }),
      await runSeed({ seed: 77, operations: 30 }),
      await runSeed({ seed: 78, operations: 30 }),
    ];
    expect(second).toEqual(first);
    expect(other.logHash).not.toBe(first.logHash);
  });

  test("nothing breaks when programs are slow where some mutants are", { timeout }, async () => {
    const { failure } = await runSeed({ seed: onlySlow.seed, operations, mutant: onlySlow });
    expect(failure?.message).toBe(undefined);
  });

  for (const mutant of mutants.filter(({ isRare }) => isRare !== true)) {
    test(`found: ${mutant.name}`, { timeout }, async () => {
      expect(await firstFound(mutant)).not.toBe(undefined);
    });
  }

  test("nothing below the ports asks the machine for time, chance, threads or the next turn", () => {
    const files = simulated.flatMap((folder) => filesIn(join(root, folder)));
    expect(files.length).toBeGreaterThan(60);
    const found = files.flatMap((file) =>
      readFileSync(file, "utf8")
        .split("\n")
        .map((line, at) => `${file}:${at + 1}: ${line.trim()}`)
        .filter((line) => ambient.test(line) && !isAllowed(line)),
    );
    expect(found).toEqual([]);
    expect(ambient.test("const at = Date.now();")).toBe(true);
    expect(ambient.test("await new Promise(setImmediate);")).toBe(true);
  });
});

/** What one rule broken leads to; the seed that finds it today is tried first, others when the product has changed. */
async function firstFound(mutant: Mutant): Promise<string | undefined> {
  for (const seed of [mutant.seed, ...Array.from({ length: mutantSeedsMax }, (_, at) => at + 1)]) {
    const { failure } = await runSeed({ seed, operations, mutant });
    if (failure?.isViolation === true) return failure.message;
  }
  return undefined;
}

const root = join(import.meta.dirname, "..", "..");
const simulated = ["shared/repository", "mover/pipeline"];
const ambient =
  /\b(Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval|setImmediate|performance\.now|randomBytes\(\d|randomFillSync|randomUUID|new Worker\()/;

/** Worker threads, which the simulation does without: `workers: 0`. */
const isAllowed = (line: string): boolean => /new Worker\(/.test(line);

function filesIn(folder: string): readonly string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && /\.ts$/.test(entry.name))
    .filter(({ name }) => !/\.test\.ts$|^test-/.test(name))
    .map((entry) => join(entry.parentPath, entry.name));
}
