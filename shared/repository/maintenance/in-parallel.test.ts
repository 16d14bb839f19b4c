import { expect, test } from "vitest";
import { inParallel } from "./in-parallel.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("does everything once, within both limits", async () => {
  let running = 0;
  let weight = 0;
  const done: number[] = [];
  const items = [1, 2, 3, 90, 4, 5, 6, 7, 8, 9];
  await inParallel(
    items,
    { inFlightMax: 3, weightMax: 10, weigh: (item) => item },
    async (item) => {
      running += 1;
      weight += item;
      expect(running).toBeLessThanOrEqual(3);
      expect(weight <= 10 || running === 1).toBe(true);
      for (let turns = 0; turns < item % 4; turns += 1) await turn();
      running -= 1;
      weight -= item;
      done.push(item);
    },
  );
  expect(done.toSorted((left, right) => left - right)).toEqual(
    items.toSorted((left, right) => left - right),
  );
});

test("a failure ends it, after what was begun has ended, and is thrown", async () => {
  const begun: number[] = [];
  let ended = 0;
  const all = inParallel(
    Array.from({ length: 100 }, (_, at) => at),
    { inFlightMax: 4 },
    async (item) => {
      begun.push(item);
      await turn();
      ended += 1;
      if (item === 5) throw new Error("at 5");
    },
  );
  await expect(all).rejects.toThrow("at 5");
  expect(begun.length).toBeLessThan(20);
  expect(ended).toBe(begun.length);
});
