import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Provider, RateLimits, Repository } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createMemoryReader, createMemoryWriter } from "../pipeline/memory-disk.ts";
import { throttledReader, throttledWriter } from "../transport/throttled-disk.ts";
import { createLimitBook } from "./limit-book.ts";
import { createOwnLimits, followLimitsFile, parseLimitsFile } from "./own-limits.ts";

/** Sleeps end when the test says so. */
function createSteppedClock() {
  let wake: () => void = () => undefined;
  let slept: () => void = () => undefined;
  const clock: Clock = {
    now: () => 0,
    sleep: (_ms, signal) =>
      new Promise((resolve, reject) => {
        wake = resolve;
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
        slept();
      }),
  };
  return {
    clock,
    /** Wakes the sleeper; resolves when it sleeps again. */
    step: () =>
      new Promise<void>((resolve) => {
        slept = resolve;
        wake();
      }),
  };
}

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-limits-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("a limits file is followed; one that makes no sense leaves the last limits, and is told", async () => {
  const { clock, step } = createSteppedClock();
  const path = join(folder, "limits.json");
  const limits = createOwnLimits(clock);
  limits.set({ read: 7, upload: 5 });
  const warnings: unknown[] = [];
  const logger = { ...silentLogger, warn: (event: string) => warnings.push(event) };
  await writeFile(path, '{ "upload": "20M", "storeRequests": 100 }');
  const over = new AbortController();
  const follow = { path, limits, clock, logger, signal: over.signal };
  const { ended } = await followLimitsFile(follow);
  expect(limits.rates()).toEqual({ read: 7, upload: 20 * 1024 ** 2, storeRequests: 100 });
  await writeFile(path, '{ "upload": "off" }');
  await step();
  expect(limits.rates()).toEqual({ read: 7, upload: "off" });
  expect(limits.store.upload[0]?.rate()).toBe("off");
  expect(limits.disk.read[0]?.rate()).toBe(7);
  await writeFile(path, '{ "upload": -1 }');
  await step();
  expect(limits.rates()).toEqual({ read: 7, upload: "off" });
  expect(warnings).toEqual(["limits unchanged"]);
  over.abort();
  await ended;
});

test("a limits file that can't be used at the begin is a failure", async () => {
  const { clock } = createSteppedClock();
  const limits = createOwnLimits(clock);
  const follow = { limits, clock, logger: silentLogger, signal: new AbortController().signal };
  await expect(followLimitsFile({ ...follow, path: join(folder, "none") })).rejects.toMatchObject({
    code: "input.invalid",
  });
  for (const text of [
    "[]",
    "{",
    '{"uplod": 1}',
    '{"upload": 1.5}',
    '{"upload": "fast"}',
    '{"upload": null}',
  ]) {
    expect(() => parseLimitsFile("f", text)).toThrow(/limits file f/);
  }
});

const repository = (limits?: RateLimits): Repository => ({
  repositoryId: "lab",
  url: "/srv",
  passphraseParameter: "p",
  createdAt: "",
  ...(limits === undefined ? {} : { limits }),
});

test("what the catalog says of limits holds for what was opened before; a catalog that is away changes nothing", async () => {
  const { clock, step } = createSteppedClock();
  let stored: RateLimits | undefined = { writeBytesPerSecond: 1000 };
  let isAway = false;
  await using book = createLimitBook({
    catalog: {
      getRepository: async () => {
        if (isAway) throw new Failure("network.unreachable", { message: "away" });
        return repository(stored);
      },
      getProvider: async (): Promise<Provider> => {
        throw new Error("not asked for");
      },
    },
    own: createOwnLimits(clock),
    clock,
    logger: silentLogger,
  });
  const opened = book.repository(repository(stored));
  const rates = () => opened.upload.map((throttle) => throttle.rate());
  expect(rates()).toEqual(["off", 1000]);
  stored = { writeBytesPerSecond: 0, requestsPerSecond: 9 };
  await step();
  expect(rates()).toEqual(["off", 0]);
  expect(opened.requests[1]?.rate()).toBe(9);
  await expect(opened.upload[1]?.take(1)).rejects.toMatchObject({
    code: "limit.zero",
    message: expect.stringMatching(/repository lab is 0/),
  });
  isAway = true;
  stored = undefined;
  await step();
  expect(rates()).toEqual(["off", 0]);
  isAway = false;
  await step();
  expect(rates()).toEqual(["off", "off"]);
  // All tasks of a mover share one limit.
  expect(book.repository(repository()).upload[1]).toBe(opened.upload[1]);
});

test("a disk within limits: reads, writes and requests are counted", async () => {
  let now = 0;
  const clock: Clock = {
    now: () => now,
    sleep: async (ms) => {
      now += ms;
    },
  };
  const own = createOwnLimits(clock);
  own.set({ read: 1000, write: 500 });
  const reader = throttledReader(createMemoryReader(new Uint8Array(10_000)), own.disk);
  for (let at = 0; at < 10; at += 1) await reader.read(at * 1000, new Uint8Array(1000));
  expect(now).toBeGreaterThanOrEqual(8800);
  expect(now).toBeLessThanOrEqual(9000);
  const began = now;
  const writer = throttledWriter(createMemoryWriter(10_000, 0xaa), own.disk);
  await writer.write(0, new Uint8Array(2000));
  await writer.zero(2000, 8000);
  await writer.write(0, new Uint8Array(1));
  expect(now - began).toBeGreaterThanOrEqual(3900);
  expect(now - began).toBeLessThanOrEqual(4000);
  own.set({ diskRequests: 0 });
  await expect(reader.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: "limit.zero" });
  await expect(writer.zero(0, 1)).rejects.toMatchObject({ code: "limit.zero" });
});
