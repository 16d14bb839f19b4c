import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type {
  CallOptions,
  ObjectHead,
  ObjectLocks,
  ObjectStore,
  ObjectVersions,
  PutOptions,
} from "@holdfast/shared/ports/object-store";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { compareKeys } from "./object-key.ts";

export type RetryPolicy = {
  /** Attempts of one call, the first included. */
  readonly attemptsMax: number;
  /** The first wait is at most this long; each further one at most twice the one before. */
  readonly delayMsFirst: number;
  readonly delayMsMax: number;
};

/** Rides out some minutes of an overloaded or restarting store. */
export const retryPolicyDefault: RetryPolicy = {
  attemptsMax: 8,
  delayMsFirst: 200,
  delayMsMax: 20_000,
};

/**
 * The same store, with calls repeated that failed in a retryable way, after waits with full jitter. A put that finds its
 * key taken after an attempt of its own had an unclear end reads the object back: the same bytes are its own success.
 */
export function withRetries(
  store: ObjectStore,
  policy: Partial<RetryPolicy>,
  clock: Clock,
  random: RandomBytes,
): ObjectStore {
  const settings = { ...retryPolicyDefault, ...policy };
  const fresh = createFreshKeys(clock);

  async function retried<T>(
    call: CallOptions | undefined,
    attempt: (unclearBefore: boolean) => Promise<T>,
    isStale: (error: unknown) => boolean = () => false,
  ): Promise<T> {
    for (let attempts = 1; ; attempts += 1) {
      try {
        return await attempt(attempts > 1);
      } catch (error) {
        const isWorthIt = isWorthRetrying(error) || isStale(error);
        if (!isWorthIt || attempts >= settings.attemptsMax) throw error;
        await clock.sleep(delayMs(attempts, settings, random), call?.signal);
      }
    }
  }

  async function putOnce(
    key: string,
    bytes: Uint8Array,
    options: { readonly unclearBefore: boolean; readonly call: PutOptions | undefined },
  ): Promise<void> {
    try {
      await store.put(key, bytes, options.call);
    } catch (error) {
      if (!options.unclearBefore || !isFailure(error, "object.exists")) throw error;
      const stored = await store.get(key, options.call);
      if (Buffer.compare(stored, bytes) !== 0) throw error;
    }
  }

  /** "Not found" for what was put here a moment ago is an old answer. */
  const isStale =
    (key: string) =>
    (error: unknown): boolean =>
      isFailure(error, "object.not-found") && fresh.has(key);

  async function headOnce(key: string, call?: CallOptions): Promise<ObjectHead> {
    const found = await store.head(key, call);
    if (found !== undefined) return found;
    throw new Failure("object.not-found", { message: `${key} does not exist`, key });
  }

  return {
    supports: store.supports,
    url: store.url,
    async put(key, bytes, call) {
      await retried(call, (unclearBefore) => putOnce(key, bytes, { unclearBefore, call }));
      fresh.add(key);
    },
    get: (key, call) => retried(call, () => store.get(key, call), isStale(key)),
    getRange: (key, range, call) =>
      retried(call, () => store.getRange(key, range, call), isStale(key)),
    head: (key, call) =>
      retried(call, () => headOnce(key, call), isStale(key)).catch((error: unknown) => {
        if (isFailure(error, "object.not-found")) return undefined;
        throw error;
      }),
    list: (prefix, call) => listRetried(prefix, call),
    async remove(keys, call) {
      for (const key of keys) fresh.forget(key);
      await retried(call, () => store.remove(keys, call));
    },
    ...(store.locks && { locks: retriedLocks(store.locks) }),
    ...(store.versions && { versions: retriedVersions(store.versions) }),
  };

  function retriedLocks(locks: ObjectLocks): ObjectLocks {
    return {
      look: (key, call) => retried(call, () => locks.look(key, call)),
      extend: (key, retention, call) => retried(call, () => locks.extend(key, retention, call)),
      hold: (key, isOn, call) => retried(call, () => locks.hold(key, isOn, call)),
    };
  }

  /** A listing of versions is not resumed: who asks for it starts over. */
  function retriedVersions(versions: ObjectVersions): ObjectVersions {
    return {
      list: (prefix, call) => versions.list(prefix, call),
      get: (key, id, call) => retried(call, () => versions.get(key, id, call)),
      reinstate: (key, id, call) => retried(call, () => versions.reinstate(key, id, call)),
    };
  }

  /** Starts over after a failure and leaves out what was given already. Progress starts the count of attempts anew. */
  async function* listRetried(prefix: string, call?: CallOptions): AsyncGenerator<ObjectHead> {
    let given: string | undefined;
    let attempts = 0;
    for (;;) {
      const items = store.list(prefix, call)[Symbol.asyncIterator]();
      try {
        for (;;) {
          const next = await nextOrFailure(items);
          if (next.failure !== undefined) {
            attempts += 1;
            if (!isWorthRetrying(next.failure) || attempts >= settings.attemptsMax) {
              throw next.failure;
            }
            await clock.sleep(delayMs(attempts, settings, random), call?.signal);
            break;
          }
          if (next.item === undefined) return;
          if (given !== undefined && compareKeys(next.item.key, given) <= 0) continue;
          attempts = 0;
          given = next.item.key;
          yield next.item;
        }
      } finally {
        await items.return?.();
      }
    }
  }
}

/** How long a store may show what was before a put: the worst that gateways and caches were seen to do is some seconds. */
const freshMs = 30_000;
/** More are put in that time by many uploads only; the oldest are believed then. */
const freshMax = 1000;

/** Keys that were put here a moment ago. */
function createFreshKeys(clock: Clock) {
  const putMs = new Map<string, number>();
  return {
    add: (key: string): void => {
      const [oldest] = putMs.keys();
      if (putMs.size >= freshMax && oldest !== undefined) putMs.delete(oldest);
      putMs.set(key, clock.now());
    },
    forget: (key: string): void => void putMs.delete(key),
    has: (key: string): boolean => {
      const at = putMs.get(key);
      return at !== undefined && Math.abs(clock.now() - at) < freshMs;
    },
  };
}

type Next = { readonly item?: ObjectHead | undefined; readonly failure?: unknown };

async function nextOrFailure(items: AsyncIterator<ObjectHead>): Promise<Next> {
  try {
    const next = await items.next();
    return { item: next.done === true ? undefined : next.value };
  } catch (error) {
    return { failure: error ?? new Failure("internal", { message: "a listing failed silently" }) };
  }
}

function isWorthRetrying(error: unknown): boolean {
  return isFailure(error) && error.kind.retryable;
}

function delayMs(attempts: number, policy: RetryPolicy, random: RandomBytes): number {
  const limit = Math.min(policy.delayMsMax, policy.delayMsFirst * 2 ** (attempts - 1));
  const [high = 0, low = 0] = random(2);
  return Math.round((limit * (high * 256 + low)) / 65_535);
}
