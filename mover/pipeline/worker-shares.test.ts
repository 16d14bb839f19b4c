import { expect, test } from "vitest";
import { createWorkerShares } from "./worker-shares.ts";

test("transfers at once share the workers: all for the first, one for each that finds none left", () => {
  const shares = createWorkerShares(4);
  const first = shares.take(3);
  const second = shares.take(3);
  const third = shares.take(3);
  expect([first, second, third].map(({ workers }) => workers)).toEqual([3, 1, 1]);
  first[Symbol.dispose]();
  // Once given back is given back once.
  first[Symbol.dispose]();
  expect(shares.take(8).workers).toBe(2);
  second[Symbol.dispose]();
  third[Symbol.dispose]();
  expect(shares.take(8).workers).toBe(2);
});
