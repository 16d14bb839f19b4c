import type { CallOptions, ObjectStore } from "../ports/object-store.ts";
import { type Throttle, takeAll } from "./throttle.ts";

/** What a store's traffic is measured by; each list may hold several limits, and all of them hold. */
export type StoreThrottles = {
  /** Bytes out of the store, and into it. */
  readonly download: readonly Throttle[];
  readonly upload: readonly Throttle[];
  /** Every call, whatever its size; a listing counts once a thousand names. */
  readonly requests: readonly Throttle[];
};

const namesPerRequest = 1000;

/**
 * The same store within limits. An object passes whole and is waited for: before its upload, before a ranged read, and after a read
 * whose length only the store knows. Belongs inside of retries, so that these count as well.
 */
export function throttled(store: ObjectStore, throttles: StoreThrottles): ObjectStore {
  const { download, upload, requests } = throttles;
  const request = (call?: CallOptions): Promise<void> => takeAll(requests, 1, call?.signal);

  async function readWhole(
    read: () => Promise<Uint8Array>,
    call: CallOptions | undefined,
  ): Promise<Uint8Array> {
    await request(call);
    // Of nothing: refused where nothing may pass, and after what passed before.
    await takeAll(download, 0, call?.signal);
    const bytes = await read();
    await takeAll(download, bytes.length, call?.signal);
    return bytes;
  }

  async function* listed<Item>(
    items: () => AsyncIterable<Item>,
    call: CallOptions | undefined,
  ): AsyncGenerator<Item> {
    await request(call);
    let names = 0;
    for await (const item of items()) {
      names += 1;
      if (names % namesPerRequest === 0) await request(call);
      yield item;
    }
  }

  const { locks, versions } = store;
  return {
    supports: store.supports,
    url: store.url,
    put: async (key, bytes, call) => {
      await request(call);
      await takeAll(upload, bytes.length, call?.signal);
      await store.put(key, bytes, call);
    },
    get: (key, call) => readWhole(() => store.get(key, call), call),
    getRange: async (key, range, call) => {
      await request(call);
      // A length that makes no sense is for the store to refuse.
      const length = Number.isSafeInteger(range.length) ? Math.max(range.length, 0) : 0;
      await takeAll(download, length, call?.signal);
      return await store.getRange(key, range, call);
    },
    head: async (key, call) => {
      await request(call);
      return await store.head(key, call);
    },
    list: (prefix, call) => listed(() => store.list(prefix, call), call),
    remove: async (keys, call) => {
      await request(call);
      await store.remove(keys, call);
    },
    ...(locks && {
      locks: {
        look: async (key, call) => {
          await request(call);
          return await locks.look(key, call);
        },
        extend: async (key, retention, call) => {
          await request(call);
          await locks.extend(key, retention, call);
        },
        hold: async (key, isOn, call) => {
          await request(call);
          await locks.hold(key, isOn, call);
        },
      },
    }),
    ...(versions && {
      versions: {
        list: (prefix, call) => listed(() => versions.list(prefix, call), call),
        get: (key, id, call) => readWhole(() => versions.get(key, id, call), call),
        reinstate: async (key, id, call) => {
          await request(call);
          await versions.reinstate(key, id, call);
        },
      },
    }),
  };
}
