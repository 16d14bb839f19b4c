import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Process } from "./process.ts";

/**
 * The protocol with one of its rules broken, by what a store hides from one who asks: the proof that the simulation can fail. No product code
 * is changed. `writer` is between a program that backs up and its store, `collector` between a collection and its.
 */
export type Mutant = {
  readonly name: string;
  /** One that finds it; of a rare one, that did so once. */
  readonly seed: number;
  /** Nothing else goes wrong: its programs are slow at the very places where the rule matters. */
  readonly isCalm?: boolean;
  /** Seldom found, by other seeds with every change of the product: for `npm run hunt -- --mutant` only. */
  readonly isRare?: boolean;
  readonly writer?: (store: ObjectStore, process: Process) => ObjectStore;
  readonly collector?: (store: ObjectStore, process: Process) => ObjectStore;
};

type Hide = (prefix: string, heads: readonly ObjectHead[]) => readonly ObjectHead[];

/** Lists what is left of the true listing. */
function hiding(store: ObjectStore, hide: Hide): ObjectStore {
  return {
    ...store,
    async *list(prefix, options) {
      const all: ObjectHead[] = [];
      for await (const head of store.list(prefix, options)) all.push(head);
      yield* hide(prefix, all);
    },
  };
}

const without = (heads: readonly ObjectHead[], part: RegExp): readonly ObjectHead[] =>
  heads.filter(({ key }) => !part.test(key));

function withoutOpenSessions(heads: readonly ObjectHead[]): readonly ObjectHead[] {
  const ended = new Set(
    heads.filter(({ key }) => /\/end-/.test(key)).map(({ key }) => key.split("/")[1]),
  );
  return heads.filter(({ key }) => !key.startsWith("sessions/") || ended.has(key.split("/")[1]));
}

const minuteMs = 60_000;

/** A program that sleeps for half a day before every third root that it puts: long enough to be fenced. */
function sleepingBeforeRoots(store: ObjectStore, process: Process): ObjectStore {
  let roots = 0;
  return {
    ...store,
    put: async (key, bytes, options) => {
      if (key.startsWith("points/")) {
        roots += 1;
        if (roots % 3 === 1) {
          process.doze(12 * 60 * minuteMs);
          await process.clock.sleep(1);
        }
      }
      await store.put(key, bytes, options);
    },
  };
}

/** A collection that takes its time before it changes the index, and before it removes packs or what is left of sessions: others go on meanwhile. */
function slowCollector(store: ObjectStore, process: Process): ObjectStore {
  return {
    ...store,
    put: async (key, bytes, options) => {
      if (key.startsWith("index/")) await process.clock.sleep(2 * minuteMs);
      await store.put(key, bytes, options);
    },
    remove: async (keys, options) => {
      const isOf = (prefix: string): boolean => keys.some((key) => key.startsWith(prefix));
      if (isOf("packs/")) await process.clock.sleep(10 * minuteMs);
      if (isOf("sessions/")) await process.clock.sleep(180 * minuteMs);
      await store.remove(keys, options);
    },
  };
}

/** What the mutants' programs do beside what is wrong with them; no rule forbids it. */
export const onlySlow: Mutant = {
  name: "programs that are only slow",
  seed: 1,
  isCalm: true,
  writer: sleepingBeforeRoots,
  collector: slowCollector,
};

export const mutants: readonly Mutant[] = [
  {
    name: "a writer ignores what is condemned",
    seed: 11,
    isRare: true,
    writer: (store) => hiding(store, (_, heads) => without(heads, /^condemned\/list-/)),
  },
  {
    name: "a writer does not look for a fence before its commit",
    seed: 2,
    isCalm: true,
    writer: (store, process) =>
      sleepingBeforeRoots(
        hiding(store, (_, heads) => without(heads, /\/(fence|end-none)-/)),
        process,
      ),
    collector: slowCollector,
  },
  {
    name: "a collector does not wait for who began before",
    seed: 5,
    collector: (store) => {
      let hasCondemned = false;
      const seen = hiding(store, (_, heads) => (hasCondemned ? withoutOpenSessions(heads) : heads));
      return {
        ...seen,
        put: async (key, bytes, options) => {
          await store.put(key, bytes, options);
          if (key.startsWith("condemned/list-")) hasCondemned = true;
        },
      };
    },
  },
  {
    name: "a collector takes who is at work for ended",
    seed: 2,
    collector: (store) => hiding(store, (_, heads) => withoutOpenSessions(heads)),
  },
  {
    name: "a collector does not mark a second time",
    seed: 18,
    collector: (store) => {
      let first: readonly ObjectHead[] | undefined;
      let isSecond = false;
      const seen = hiding(store, (prefix, heads) => {
        if (prefix !== "points/") return heads;
        if (isSecond && first !== undefined) return first;
        first = heads;
        return heads;
      });
      return {
        ...seen,
        put: async (key, bytes, options) => {
          await store.put(key, bytes, options);
          if (key.startsWith("condemned/list-")) isSecond = true;
        },
      };
    },
  },
  {
    name: "a collector that fences does not look for roots",
    seed: 2,
    collector: (store) => {
      let fencesAt = 0;
      const seen = hiding(store, (prefix, heads) => {
        const isAfterFence = prefix === "points/" && fencesAt > 0;
        fencesAt = 0;
        return isAfterFence ? [] : heads;
      });
      return {
        ...seen,
        put: async (key, bytes, options) => {
          await store.put(key, bytes, options);
          if (/\/fence-/.test(key)) fencesAt += 1;
        },
      };
    },
  },
];
