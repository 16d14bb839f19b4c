import fc from "fast-check";
import { expect, test } from "vitest";
import { createCoverage } from "./coverage.ts";

test("accepts exactly what is inside and not covered yet, and knows when all is", () => {
  const size = 40;
  const ranges = fc.array(
    fc.tuple(fc.integer({ min: -2, max: 42 }), fc.integer({ min: -1, max: 12 })),
    {
      maxLength: 60,
    },
  );
  const property = fc.property(ranges, (list) => {
    const coverage = createCoverage(size);
    const seen = new Array<boolean>(size).fill(false);
    for (const [start, length] of list) {
      const end = start + length;
      const isFree = seen.slice(Math.max(start, 0), Math.max(end, 0)).every((covered) => !covered);
      const isAllowed = start >= 0 && length > 0 && end <= size && isFree;
      expect(coverage.add(start, end)).toBe(isAllowed);
      if (isAllowed) seen.fill(true, start, end);
      expect(coverage.isComplete()).toBe(seen.every((covered) => covered));
    }
  });
  fc.assert(property, { numRuns: 2000 });
});

test("a range that is no number is refused", () => {
  expect(createCoverage(10).add(Number.NaN, 5)).toBe(false);
  expect(createCoverage(10).add(0, Number.NaN)).toBe(false);
});

test("scattered chunks do not cost memory without bound", () => {
  const coverage = createCoverage(1_000_000);
  let accepted = 0;
  while (coverage.add(accepted * 2, accepted * 2 + 1)) accepted += 1;
  expect(accepted).toBe(4096);
});
