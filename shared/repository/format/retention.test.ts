import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { isLockedName, retentionFrom, withRetention } from "./retention.ts";

const dayMs = 24 * 60 * 60 * 1000;

test("a retention lasts as long as was promised, at most a generation longer, and ends with one", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3650 }),
      fc.integer({ min: 0, max: 4e12 }),
      (days, nowMs) => {
        const { mode, untilMs } = retentionFrom({ mode: "compliance", days }, nowMs);
        expect(mode).toBe("compliance");
        expect(untilMs - nowMs).toBeGreaterThanOrEqual(days * dayMs);
        expect(untilMs - nowMs).toBeLessThan((days + 10) * dayMs);
        expect(untilMs % (10 * dayMs)).toBe(0);
      },
    ),
  );
});

test("what a point would be lost with is locked, and what must go soon is not", () => {
  const locked = [
    "config",
    "keys/0123",
    "packs/01/0123",
    "disks/0123",
    "metadata/0123",
    "points/vm/point-job-1-0123",
    "relocations/0123-4567",
    "sessions/0123/end-4567-89ab",
  ];
  const free = [
    "index/0123",
    "checkpoints/0123",
    "condemned/0123",
    "probe/0123/a",
    "sessions/0123/start-4567",
    "sessions/0123/renew-4567",
    "sessions/0123/fence-4567",
    "sessions/0123/end-none-4567",
    "configuration",
  ];
  expect(locked.filter((name) => !isLockedName(name))).toEqual([]);
  expect(free.filter(isLockedName)).toEqual([]);
});

test("puts carry their retention, and what is locked cannot be removed before its date", async () => {
  let nowMs = 0;
  const clock = { now: () => nowMs, sleep: async () => undefined };
  const bare = createMemoryObjectStore({ lockClock: clock });
  const store = withRetention(bare, { mode: "governance", days: 3 }, clock);
  await store.put("config", Uint8Array.of(1));
  await store.put("index/1", Uint8Array.of(1));
  await store.remove(["index/1"]);
  const until = new Date(10 * dayMs).toISOString();
  const refusal = { code: "storage.locked", message: expect.stringContaining(until) };
  await expect(store.remove(["config"])).rejects.toMatchObject(refusal);
  nowMs = 10 * dayMs;
  await store.remove(["config"]);
  expect(await store.head("config")).toBeUndefined();
});

test("a repository is not locked by halves: a store that cannot lock is refused", () => {
  const clock = { now: () => 0, sleep: async () => undefined };
  const bare = createMemoryObjectStore();
  expect(withRetention(bare, undefined, clock)).toBe(bare);
  expect(() => withRetention(bare, { mode: "compliance", days: 1 }, clock)).toThrow(/Object Lock/);
});
