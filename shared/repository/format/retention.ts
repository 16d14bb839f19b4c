import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import type { Clock } from "../../ports/clock.ts";
import type { ObjectStore, Retention } from "../../ports/object-store.ts";

/**
 * What a repository with Object Lock promises: nobody, whatever credential he has, destroys what a recovery point needs within `days`
 * after it was written, or after its retention was last extended.
 */
export const LockSettings = z.strictObject({
  mode: z.enum(["compliance", "governance"]),
  days: z.int().min(1).max(3650),
});
export type LockSettings = z.infer<typeof LockSettings>;

const dayMs = 24 * 60 * 60 * 1000;
/** Dates of retention are multiples of this: what is needed for long is extended once in so many days, not by each run. */
const generationDays = 10;

/** At least `days` from now, rounded up to the end of a generation. */
export function retentionFrom(lock: LockSettings, nowMs: number): Retention {
  const generationMs = generationDays * dayMs;
  const untilMs = Math.ceil((nowMs + lock.days * dayMs) / generationMs) * generationMs;
  return { mode: lock.mode, untilMs };
}

/**
 * Whether it is locked when it is put: a point, or the right to read it, would be lost with it. The rest can be made again, or must go soon. A
 * session's start, without which its root is no point, is locked when it is known that the session made one: by `extendLocks`.
 */
export function isLockedName(name: string): boolean {
  return lockedNames.test(name);
}

const lockedNames =
  /^(config$|(packs|disks|metadata|points|keys|relocations)\/|sessions\/[^/]+\/end-(?!none))/;

/** The same store; each put of what must be locked carries its retention. */
export function withRetention(
  store: ObjectStore,
  lock: LockSettings | undefined,
  clock: Clock,
): ObjectStore {
  if (lock === undefined) return store;
  if (store.supports.objectLock !== true) {
    throw new Failure("unsupported", {
      message: `${store.url} cannot lock objects: use an S3 bucket that was created with Object Lock`,
    });
  }
  return {
    ...store,
    put: (key, bytes, options) =>
      store.put(key, bytes, {
        ...options,
        ...(isLockedName(key) ? { retention: retentionFrom(lock, clock.now()) } : {}),
      }),
  };
}
