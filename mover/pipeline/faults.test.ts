import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes, writePieces } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  openTestRepository,
  restore,
  transfer,
  writePoint,
} from "./test-repository.ts";

const disk = writePieces(new Uint8Array(1_500_000), [
  { at: 0, length: 700_000, seed: 1 },
  { at: 900_000, length: 600_000, seed: 2 },
]);

/** A job: what its stages have done they don't do again, and they share a session. */
function createJob() {
  const sessionId = "00112233aabbccdd";
  let recordKey: string | undefined;
  return async (repository: Repository): Promise<string> => {
    if (recordKey === undefined) {
      const session = await beginSession(repository, { sessionId });
      recordKey = (await transfer(repository, createMemoryReader(disk), { session })).recordKey;
    }
    const session = await repository.sessions.resume(sessionId, { alsoCommitted: true });
    return (await writePoint(repository, newPoint(recordKey), session)).rootKey;
  };
}

async function pointsOf(repository: Repository): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { rootKey } of repository.listPoints()) found.push(rootKey);
  return found;
}

/** Fails at the put of this number, before or after it takes effect. */
function failingAt(store: ObjectStore, number: number, after: boolean): ObjectStore {
  let puts = 0;
  return {
    ...store,
    put: async (key, bytes, options) => {
      puts += 1;
      if (puts !== number) return store.put(key, bytes, options);
      if (after) await store.put(key, bytes, options);
      throw new Failure("storage.unreachable", { message: "the store is away" });
    },
  };
}

describe("faults of the store", () => {
  test.each([false, true])(
    "each put fails in turn (after it took effect: %s): no half point is listed, and the next run succeeds",
    async (after) => {
      for (let number = 1; ; number += 1) {
        const store = createMemoryObjectStore();
        await createTestRepository(store);
        const backUp = createJob();
        let failed = false;
        try {
          await backUp(await openTestRepository(failingAt(store, number, after)));
        } catch (error) {
          expect(isFailure(error, "storage.unreachable")).toBe(true);
          failed = true;
        }
        const repository = await openTestRepository(store);
        const listed = await pointsOf(repository);
        for (const rootKey of listed) await repository.readPoint(rootKey);
        if (failed && !after) expect(listed).toEqual([]);
        const rootKey = await backUp(repository);
        expect(await pointsOf(repository)).toEqual([rootKey]);
        const recordKey = (await repository.readPoint(rootKey)).disks[0]?.recordKey ?? "";
        const target = await restore(repository, recordKey, { sizeBytes: disk.length });
        expect(Buffer.compare(target.bytes, disk)).toBe(0);
        if (!failed) {
          expect(number).toBeGreaterThan(6);
          break;
        }
      }
    },
  );

  test("a failing read of the source ends the transfer with that failure", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const reader = createMemoryReader(disk, {
      onRead: (offset) => {
        if (offset < 500_000) return;
        throw new Failure("disk.read-failed", { message: "EIO at 500000" });
      },
    });
    for (const workers of [0, 1]) {
      await expect(transfer(repository, reader, { workers })).rejects.toThrow("EIO at 500000");
    }
  });

  test("a stopped transfer ends at once, whatever it waits for", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const abort = new AbortController();
    const reader = createMemoryReader(disk);
    const stuck = {
      ...reader,
      read: (_offset: number, _into: Uint8Array, options?: { readonly signal?: AbortSignal }) =>
        new Promise<void>((_resolve, reject) => {
          options?.signal?.addEventListener("abort", () => reject(new Error("stopped")));
          abort.abort();
        }),
    };
    await expect(transfer(repository, stuck, { signal: abort.signal })).rejects.toSatisfy((error) =>
      isFailure(error, "cancelled"),
    );
  });

  test("a store that is slow holds back the reading", async () => {
    const store = createMemoryObjectStore();
    await createTestRepository(store);
    let open: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    let read = 0;
    const slow: ObjectStore = {
      ...store,
      put: async (key, bytes, options) => {
        if (key.startsWith("packs/")) await gate;
        await store.put(key, bytes, options);
      },
    };
    const large = seededBytes(32_000_000, 3);
    const reader = createMemoryReader(large, {
      onRead: (_, length) => {
        read += length;
      },
    });
    const running = transfer(await openTestRepository(slow), reader);
    let before = -1;
    // It goes on until it stands still by itself.
    while (before !== read || read === 0) {
      before = read;
      for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
    }
    expect(read).toBeLessThan(large.length / 2);
    open?.();
    expect((await running).stats.bytesRead).toBe(large.length);
  });
});
