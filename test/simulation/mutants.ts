import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";

/**
 * The protocol with one of its rules broken, by what a store hides from one who asks: the proof that the simulation can fail. No product code
 * is changed. `writer` is between a program that backs up and its store, `collector` between a collection and its.
 */
export type Mutant = {
  readonly name: string;
  /** One that finds it. */
  readonly seed: number;
  readonly writer?: (store: ObjectStore) => ObjectStore;
  readonly collector?: (store: ObjectStore) => ObjectStore;
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

export const mutants: readonly Mutant[] = [
  {
    name: "a writer ignores what is condemned",
    seed: 11,
    writer: (store) => hiding(store, (_, heads) => without(heads, /^condemned\/list-/)),
  },
  {
    name: "a writer does not look for a fence before its commit",
    seed: 1,
    writer: (store) => hiding(store, (_, heads) => without(heads, /\/(fence|end-none)-/)),
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
