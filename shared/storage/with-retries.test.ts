import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { expect, test } from "vitest";
import { createMemoryObjectStore } from "./memory/memory-object-store.ts";
import { withRetries } from "./with-retries.ts";

const bytes = Uint8Array.of(1, 2, 3);
const unreachable = () => new Failure("storage.unreachable", { message: "gone by the test" });

test("waits grow with full jitter up to their limit, and attempts end", async () => {
  const { clock, waits } = recordingClock();
  const failing: ObjectStore = {
    ...createMemoryObjectStore(),
    get: () => Promise.reject(unreachable()),
  };
  const policy = { attemptsMax: 6, delayMsFirst: 100, delayMsMax: 500 };
  const longest = () => Uint8Array.of(255, 255);
  await expect(withRetries(failing, policy, clock, longest).get("key")).rejects.toMatchObject({
    code: "storage.unreachable",
  });
  expect(waits).toEqual([100, 200, 400, 500, 500]);
  waits.length = 0;
  const shortest = () => Uint8Array.of(0, 0);
  await expect(withRetries(failing, policy, clock, shortest).get("key")).rejects.toThrow();
  expect(waits).toEqual([0, 0, 0, 0, 0]);
});

test("what is not retryable surfaces at once", async () => {
  const { clock, waits } = recordingClock();
  const store = withRetries(createMemoryObjectStore(), {}, clock, () => Uint8Array.of(9, 9));
  await expect(store.get("missing")).rejects.toMatchObject({ code: "object.not-found" });
  await store.put("key", bytes);
  await expect(store.put("key", bytes)).rejects.toMatchObject({ code: "object.exists" });
  expect(waits).toEqual([]);
});

test("a put that took place and failed is recognised by its bytes", async () => {
  const store = failingAfterPut(bytes);
  await retried(store).put("key", bytes);
  expect(await store.get("key")).toEqual(bytes);
});

test("a put that failed while another one took the key is object.exists", async () => {
  const store = failingAfterPut(Uint8Array.of(9));
  await expect(retried(store).put("key", bytes)).rejects.toMatchObject({ code: "object.exists" });
});

test("a wait ends when the call is told to stop", async () => {
  const stop = new AbortController();
  const reason = new Error("told to stop");
  const clock: Clock = {
    now: () => 0,
    sleep: async (_delayMs, signal) => {
      stop.abort(reason);
      signal?.throwIfAborted();
    },
  };
  const failing: ObjectStore = {
    ...createMemoryObjectStore(),
    head: () => Promise.reject(unreachable()),
  };
  const store = withRetries(failing, {}, clock, () => Uint8Array.of(0, 0));
  await expect(store.head("key", { signal: stop.signal })).rejects.toBe(reason);
});

/** The first put stores these bytes and fails as if its answer was lost. */
function failingAfterPut(stored: Uint8Array): ObjectStore {
  const memory = createMemoryObjectStore();
  let failed = false;
  return {
    ...memory,
    put: async (key, given) => {
      if (failed) return await memory.put(key, given);
      failed = true;
      await memory.put(key, stored);
      throw unreachable();
    },
  };
}

function retried(store: ObjectStore): ObjectStore {
  return withRetries(store, {}, recordingClock().clock, () => Uint8Array.of(9, 9));
}

function recordingClock(): { readonly clock: Clock; readonly waits: number[] } {
  const waits: number[] = [];
  return {
    waits,
    clock: {
      now: () => 0,
      sleep: async (delayMs) => {
        waits.push(delayMs);
      },
    },
  };
}
