import { strict as assert } from "node:assert";

/**
 * Does `work` for each item, at most `inFlightMax` at a time, and at most `weightMax` of weight at a time (or one item that is
 * heavier). The first failure ends it: no more is begun, and it is thrown once what was begun has ended.
 */
export async function inParallel<Item>(
  items: AsyncIterable<Item> | Iterable<Item>,
  limits: {
    readonly inFlightMax: number;
    readonly weightMax?: number;
    readonly weigh?: (item: Item) => number;
  },
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const { inFlightMax, weightMax = Number.POSITIVE_INFINITY, weigh = () => 0 } = limits;
  assert(inFlightMax > 0);
  const running = new Set<Promise<void>>();
  let weight = 0;
  const failures: unknown[] = [];
  for await (const item of items) {
    const its = weigh(item);
    while (running.size > 0 && (running.size >= inFlightMax || weight + its > weightMax)) {
      await Promise.race(running);
    }
    if (failures.length > 0) break;
    weight += its;
    const one = work(item)
      .catch((error: unknown) => void failures.push(error))
      .finally(() => {
        weight -= its;
        running.delete(one);
      });
    running.add(one);
  }
  await Promise.all(running);
  if (failures.length > 0) throw failures[0];
}
