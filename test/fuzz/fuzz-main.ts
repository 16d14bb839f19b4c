/** npm run fuzz -- --runs 1000000 [--seed N]: the targets of fuzz.test.ts for as long as wanted. Ends with 1 when something is found. */
import { parseArgs } from "node:util";
import { fuzz } from "./fuzz.ts";
import { fuzzTargets } from "./targets.ts";

const { values } = parseArgs({
  options: { runs: { type: "string", default: "1000000" }, seed: { type: "string" } },
});
const runs = Number(values.runs);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
process.stdout.write(`seed ${seed}, ${runs} runs\n`);
const { problems, refused } = fuzz(await fuzzTargets(), { runs, seed });
for (const { target, seed: found, problem } of problems) {
  process.stdout.write(`${target}, seed ${found}: ${problem}\n`);
}
process.stdout.write(`${refused} refused, ${problems.length} problems\n`);
process.exitCode = problems.length === 0 ? 0 : 1;
