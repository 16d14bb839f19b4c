import { zstdCompressSync } from "node:zlib";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { inflate } from "@holdfast/shared/repository/format/compression";
import { expect, test } from "vitest";
import { fuzz } from "./fuzz.ts";
import { fuzzTargets } from "./targets.ts";

test("every decoder takes its good examples", async () => {
  for (const { name, examples, decode } of await fuzzTargets()) {
    if (name === "zstd" || name === "damage record") continue;
    for (const example of examples) expect(decode(example)).toBeDefined();
  }
});

test("changed bytes are refused or read, never another error, never much memory", async () => {
  const targets = await fuzzTargets();
  const { problems, refused } = fuzz(targets, { runs: 20_000, seed: 1 });
  expect(problems).toEqual([]);
  // Most changes break something: a decoder that takes everything looks at nothing.
  expect(refused).toBeGreaterThan(10_000);
}, 120_000);

test("a planted error and a planted allocation are found", () => {
  const examples = [new Uint8Array(64)];
  const broken = {
    name: "broken",
    examples,
    decode: () => {
      throw new TypeError("undefined is not a function");
    },
    refusals: [],
  };
  const kept: Uint8Array[] = [];
  const greedy = {
    name: "greedy",
    examples,
    decode: () => {
      kept.push(new Uint8Array(100 * 1024 * 1024));
      throw new Failure("object.corrupt", { message: "x" });
    },
    refusals: ["object.corrupt" as const],
  };
  const { problems } = fuzz([broken, greedy], { runs: 2, seed: 1 });
  expect(problems.map(({ target }) => target)).toEqual(["broken", "greedy"]);
});

test("a record of 1 KiB that would inflate to 10 GiB is refused", () => {
  // Blocks of zeros compress to a few bytes each: frames one after the other inflate to all of them.
  const frame = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
  const bomb = Buffer.concat(Array.from({ length: 160 }, () => frame));
  const before = process.memoryUsage().arrayBuffers;
  for (const rawLength of [0, 1000, 1024 * 1024]) {
    try {
      inflate(bomb, rawLength, "bomb");
      expect.unreachable();
    } catch (error) {
      expect(isFailure(error, "object.corrupt")).toBe(true);
    }
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 1024 * 1024);
});
