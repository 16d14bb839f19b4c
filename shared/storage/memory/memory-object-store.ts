import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { type LockedObject, storageLocked } from "@holdfast/shared/ports/object-lock";
import type { ObjectLocks, ObjectStore, Retention } from "@holdfast/shared/ports/object-store";
import { checkByteRange, checkObjectKey, checkObjectPrefix, compareKeys } from "../object-key.ts";

type MemoryObject = {
  readonly bytes: Uint8Array;
  readonly retention: Retention | undefined;
  readonly legalHold: boolean;
};

/**
 * The port in memory: for tests and simulations. Copies bytes in and out, so no caller can change what is stored. With
 * `lockClock` it has Object Lock, whose time is that clock's.
 */
export function createMemoryObjectStore(
  options: { readonly url?: string; readonly lockClock?: Clock } = {},
): ObjectStore {
  const objects = new Map<string, MemoryObject>();
  const { lockClock } = options;
  const url = options.url ?? "memory:";

  function find(key: string): MemoryObject {
    checkObjectKey(key);
    const found = objects.get(key);
    if (found !== undefined) return found;
    throw new Failure("object.not-found", { message: `object ${key} does not exist`, key });
  }

  const locks: ObjectLocks = {
    async look(key) {
      checkObjectKey(key);
      const found = objects.get(key);
      return found && { retention: found.retention, legalHold: found.legalHold };
    },
    async extend(key, retention, call) {
      call?.signal?.throwIfAborted();
      const found = find(key);
      const weaker = found.retention?.mode === "compliance" && retention.mode === "governance";
      if (weaker || retention.untilMs < (found.retention?.untilMs ?? 0)) {
        throw new Failure("storage.refused", {
          message: `the retention of ${key} can only be extended`,
          key,
        });
      }
      objects.set(key, { ...found, retention });
    },
    async hold(key, isOn, call) {
      call?.signal?.throwIfAborted();
      objects.set(key, { ...find(key), legalHold: isOn });
    },
  };

  return {
    supports: { conditionalPut: true, objectLock: lockClock !== undefined },
    url,
    ...(lockClock && { locks }),
    async put(key, bytes, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      if (call?.retention !== undefined && lockClock === undefined) {
        throw new Failure("unsupported", { message: `${url} has no Object Lock` });
      }
      if (objects.has(key)) {
        throw new Failure("object.exists", { message: `object ${key} exists already`, key });
      }
      objects.set(key, {
        bytes: Uint8Array.from(bytes),
        retention: call?.retention,
        legalHold: false,
      });
    },
    async get(key, call) {
      call?.signal?.throwIfAborted();
      return find(key).bytes.slice();
    },
    async getRange(key, range, call) {
      call?.signal?.throwIfAborted();
      checkByteRange(range);
      const { bytes } = find(key);
      const end = range.offset + range.length;
      if (end <= bytes.length) return bytes.slice(range.offset, end);
      throw new Failure("object.corrupt", {
        message: `object ${key} has ${bytes.length} bytes, bytes ${range.offset} to ${end} were asked for`,
        key,
      });
    },
    async head(key, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      const found = objects.get(key);
      return found && { key, sizeBytes: found.bytes.length };
    },
    async *list(prefix, call) {
      checkObjectPrefix(prefix);
      const keys = [...objects.keys()].filter((key) => key.startsWith(prefix)).sort(compareKeys);
      for (const key of keys) {
        call?.signal?.throwIfAborted();
        const found = objects.get(key);
        if (found !== undefined) yield { key, sizeBytes: found.bytes.length };
      }
    },
    async remove(keys, call) {
      call?.signal?.throwIfAborted();
      for (const key of keys) checkObjectKey(key);
      const locked: LockedObject[] = [];
      for (const key of keys) {
        const lock = lockOf(objects.get(key), lockClock);
        if (lock === undefined) objects.delete(key);
        else locked.push({ key, ...lock });
      }
      if (locked.length > 0) throw storageLocked(url, locked);
    },
  };
}

function lockOf(
  found: MemoryObject | undefined,
  clock: Clock | undefined,
): Omit<LockedObject, "key"> | undefined {
  if (found === undefined || clock === undefined) return undefined;
  const { retention, legalHold } = found;
  const isRetained = retention !== undefined && retention.untilMs > clock.now();
  if (!isRetained && !legalHold) return undefined;
  return {
    until: isRetained ? new Date(retention.untilMs).toISOString() : undefined,
    legalHold,
  };
}
