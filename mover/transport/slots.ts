/** At most so many at once; the others wait in order. */
export type Slots = { run<Result>(work: () => Promise<Result>): Promise<Result> };

export function createSlots(slotsMax: number): Slots {
  let used = 0;
  const waiting: (() => void)[] = [];
  return {
    async run(work) {
      if (used >= slotsMax) await new Promise<void>((resolve) => waiting.push(resolve));
      else used += 1;
      try {
        return await work();
      } finally {
        const next = waiting.shift();
        // The slot goes straight to the next one: `used` stays as it is.
        if (next === undefined) used -= 1;
        else next();
      }
    },
  };
}
