import { compareKeys } from "@holdfast/shared/storage/object-key";

/** What the simulated store really holds, now; every actor's calls take effect here, one at a time. */
export type Bucket = {
  readonly get: (key: string) => Uint8Array | undefined;
  readonly has: (key: string) => boolean;
  readonly put: (key: string, bytes: Uint8Array) => void;
  readonly remove: (key: string) => void;
  /** True milliseconds at which the key was put last. */
  readonly putAt: (key: string) => number;
  /** Names that begin like this and come after `after`, at most `limit`. */
  readonly page: (prefix: string, after: string, limit: number) => readonly string[];
  readonly keys: (prefix: string) => readonly string[];
};

export type BucketChange =
  | { readonly type: "put"; readonly key: string }
  /** `bytes`: what is gone. */
  | { readonly type: "remove"; readonly key: string; readonly bytes: Uint8Array };

export function createBucket(o: {
  readonly now: () => number;
  readonly onChange: (change: BucketChange) => void;
}): Bucket {
  const objects = new Map<string, { readonly bytes: Uint8Array; readonly at: number }>();
  const sorted: string[] = [];

  function place(key: string): number {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compareKeys(sorted[middle] ?? "", key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function page(prefix: string, after: string, limit: number): readonly string[] {
    const found: string[] = [];
    for (let at = place(after < prefix ? prefix : after); found.length < limit; at += 1) {
      const key = sorted[at];
      if (key === undefined || !key.startsWith(prefix)) break;
      if (key !== after) found.push(key);
    }
    return found;
  }

  return {
    get: (key) => objects.get(key)?.bytes,
    has: (key) => objects.has(key),
    putAt: (key) => objects.get(key)?.at ?? 0,
    put: (key, bytes) => {
      if (!objects.has(key)) sorted.splice(place(key), 0, key);
      objects.set(key, { bytes, at: o.now() });
      o.onChange({ type: "put", key });
    },
    remove: (key) => {
      const bytes = objects.get(key)?.bytes;
      if (bytes === undefined) return;
      objects.delete(key);
      sorted.splice(place(key), 1);
      o.onChange({ type: "remove", key, bytes });
    },
    page,
    keys: (prefix) => page(prefix, "", Number.POSITIVE_INFINITY),
  };
}
