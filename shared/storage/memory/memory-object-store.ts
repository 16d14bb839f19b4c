import { Failure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { checkByteRange, checkObjectKey, checkObjectPrefix, compareKeys } from "../object-key.ts";

/** The port in memory: for tests and simulations. Copies bytes in and out, so no caller can change what is stored. */
export function createMemoryObjectStore(options: { readonly url?: string } = {}): ObjectStore {
  const objects = new Map<string, Uint8Array>();

  function find(key: string): Uint8Array {
    checkObjectKey(key);
    const bytes = objects.get(key);
    if (bytes !== undefined) return bytes;
    throw new Failure("object.not-found", { message: `object ${key} does not exist`, key });
  }

  return {
    supports: { conditionalPut: true },
    url: options.url ?? "memory:",
    async put(key, bytes, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      if (objects.has(key)) {
        throw new Failure("object.exists", { message: `object ${key} exists already`, key });
      }
      objects.set(key, bytes.slice());
    },
    async get(key, call) {
      call?.signal?.throwIfAborted();
      return find(key).slice();
    },
    async getRange(key, range, call) {
      call?.signal?.throwIfAborted();
      checkByteRange(range);
      const bytes = find(key);
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
      const bytes = objects.get(key);
      return bytes === undefined ? undefined : { key, sizeBytes: bytes.length };
    },
    async *list(prefix, call) {
      checkObjectPrefix(prefix);
      const keys = [...objects.keys()].filter((key) => key.startsWith(prefix)).sort(compareKeys);
      for (const key of keys) {
        call?.signal?.throwIfAborted();
        const bytes = objects.get(key);
        if (bytes !== undefined) yield { key, sizeBytes: bytes.length };
      }
    },
    async remove(keys, call) {
      call?.signal?.throwIfAborted();
      for (const key of keys) checkObjectKey(key);
      for (const key of keys) objects.delete(key);
    },
  };
}
