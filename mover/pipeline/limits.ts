/** Waiting with limits: every wait ends at once when the signal aborts, with the signal's reason. */
export type Slots = {
  readonly free: () => number;
  /** Waits for a slot, first come first served. */
  readonly take: (signal: AbortSignal) => Promise<void>;
  readonly give: () => void;
};

export function createSlots(count: number): Slots {
  let free = count;
  const waiting: (() => void)[] = [];
  return {
    free: () => free,
    take: async (signal) => {
      signal.throwIfAborted();
      if (free > 0) {
        free -= 1;
        return;
      }
      await new Promise<void>((resolve, reject) => {
        const wake = (): void => {
          signal.removeEventListener("abort", stop);
          resolve();
        };
        const stop = (): void => {
          const position = waiting.indexOf(wake);
          if (position >= 0) waiting.splice(position, 1);
          reject(signal.reason);
        };
        waiting.push(wake);
        signal.addEventListener("abort", stop, { once: true });
      });
    },
    give: () => {
      const wake = waiting.shift();
      if (wake === undefined) free += 1;
      else wake();
    },
  };
}

/** Wakes all who wait for some condition to be looked at again. */
export type Bell = {
  readonly ring: () => void;
  readonly until: (condition: () => boolean, signal: AbortSignal) => Promise<void>;
};

export function createBell(): Bell {
  let waiting: (() => void)[] = [];
  return {
    ring: () => {
      const all = waiting;
      waiting = [];
      for (const wake of all) wake();
    },
    until: async (condition, signal) => {
      signal.throwIfAborted();
      while (!condition()) {
        await new Promise<void>((resolve, reject) => {
          const stop = (): void => reject(signal.reason);
          waiting.push(() => {
            signal.removeEventListener("abort", stop);
            resolve();
          });
          signal.addEventListener("abort", stop, { once: true });
        });
        signal.throwIfAborted();
      }
    },
  };
}
