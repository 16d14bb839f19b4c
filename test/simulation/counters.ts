/** How often each fault was met and each way out of one was taken: a hunt that never went there proves nothing. */
export type Counters = {
  readonly count: (name: string) => void;
  readonly all: () => ReadonlyMap<string, number>;
};

export function createCounters(): Counters {
  const counts = new Map<string, number>();
  return {
    count: (name) => counts.set(name, (counts.get(name) ?? 0) + 1),
    all: () => counts,
  };
}
