import { expect, test } from "vitest";
import type { Rate } from "../domain/rate.ts";
import type { Clock } from "../ports/clock.ts";
import { createMemoryObjectStore } from "./memory/memory-object-store.ts";
import { createThrottle, type Throttle } from "./throttle.ts";
import { throttled } from "./throttled.ts";

/** Time passes only by `pass`, and all who slept until then wake in order. */
function createStoppedClock() {
  let now = 1_000_000;
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const clock: Clock = {
    now: () => now,
    sleep: (delayMs, signal) =>
      new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        const sleeper = { at: now + delayMs, wake: resolve };
        sleepers.add(sleeper);
        signal?.addEventListener("abort", () => {
          sleepers.delete(sleeper);
          reject(signal.reason);
        });
      }),
  };
  async function pass(ms: number): Promise<void> {
    const end = now + ms;
    for (;;) {
      await settle();
      const [next] = [...sleepers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (next === undefined) break;
      now = Math.max(now, next.at);
      sleepers.delete(next);
      next.wake();
    }
    now = end;
    await settle();
  }
  return { clock, pass, setBack: (ms: number) => (now -= ms) };
}

function start(rate: Rate) {
  const { clock, ...time } = createStoppedClock();
  return { clock, ...time, throttle: createThrottle({ clock, what: "upload", rate }) };
}

/** Takes as often as it may, and counts. */
function flow(throttle: Throttle, amount: number, signal?: AbortSignal) {
  const state = { taken: 0, failure: undefined as unknown };
  void (async () => {
    try {
      for (;;) {
        await throttle.take(amount, signal);
        state.taken += amount;
      }
    } catch (error) {
      state.failure = error;
    }
  })();
  return state;
}

test.each([1000, 8, 333_333, 50_000_000])(
  "at %i a second that passes over time, no more",
  async (rate) => {
    const { throttle, pass } = start(rate);
    const amount = Math.ceil(rate / 7);
    const one = flow(throttle, amount);
    await pass(100_000);
    // A tenth of a second's worth at the begin, and the last one ahead of its time.
    expect(one.taken).toBeGreaterThanOrEqual(rate * 100 - amount);
    expect(one.taken).toBeLessThanOrEqual(rate * 100.1 + amount);
  },
);

test("many share one limit evenly, first come first served", async () => {
  const { throttle, pass } = start(1000);
  const flows = Array.from({ length: 8 }, () => flow(throttle, 100));
  await pass(80_000);
  const taken = flows.map((each) => each.taken);
  expect(Math.max(...taken) - Math.min(...taken)).toBeLessThanOrEqual(100);
  const sum = taken.reduce((all, each) => all + each);
  expect(sum).toBeGreaterThanOrEqual(79_900);
  expect(sum).toBeLessThanOrEqual(80_300);
});

test("one large thing passes whole, and the next waits for it", async () => {
  const { throttle, pass } = start(1000);
  await throttle.take(50_000);
  const next = flow(throttle, 1);
  await pass(49_000);
  expect(next.taken).toBe(0);
  await pass(1000);
  expect(next.taken).toBeGreaterThan(0);
});

test("after a pause a tenth of a second's worth passes at once, not the pause's", async () => {
  const { throttle, pass } = start(1000);
  await pass(3_600_000);
  const one = flow(throttle, 10);
  await pass(0);
  expect(one.taken).toBeLessThanOrEqual(110);
});

test("a changed rate holds at once, also for who waits already", async () => {
  const { throttle, pass } = start(10);
  const one = flow(throttle, 100);
  await pass(5000);
  expect(one.taken).toBe(100);
  throttle.setRate(1000);
  await pass(1000);
  expect(one.taken).toBeGreaterThanOrEqual(1000);
  expect(one.taken).toBeLessThanOrEqual(1300);
  throttle.setRate(10);
  const before = one.taken;
  await pass(100_000);
  expect(one.taken - before).toBeGreaterThanOrEqual(900);
  expect(one.taken - before).toBeLessThanOrEqual(1100);
});

test("off lets everything through, also what waits", async () => {
  const { throttle, pass } = start(1);
  await throttle.take(1000);
  let done = false;
  const waiting = throttle.take(1000).then(() => {
    done = true;
  });
  await pass(1000);
  expect(done).toBe(false);
  throttle.setRate("off");
  await waiting;
  await throttle.take(1e15);
  expect(throttle.rate()).toBe("off");
});

test("0 is zero, not unlimited: refused with a reason, also for who waits", async () => {
  const { throttle, pass } = start(1);
  await throttle.take(1000);
  const waiting = flow(throttle, 1);
  await pass(10);
  throttle.setRate(0);
  await pass(0);
  expect(waiting.failure).toMatchObject({
    code: "limit.zero",
    message: expect.stringMatching(/upload is 0/),
  });
  await expect(throttle.take(0)).rejects.toMatchObject({ code: "limit.zero" });
  throttle.setRate("off");
  await throttle.take(5);
});

test("who is told to stop stops waiting at once, and takes nothing", async () => {
  const { throttle, pass } = start(100);
  await throttle.take(1000);
  const stop = new AbortController();
  const first = throttle.take(1_000_000, stop.signal);
  const second = flow(throttle, 100);
  await pass(100);
  stop.abort(new Error("enough"));
  await expect(first).rejects.toThrow("enough");
  await expect(throttle.take(1, stop.signal)).rejects.toThrow("enough");
  await pass(9900);
  expect(second.taken).toBe(100);
});

test.each([-1, Number.NaN, Number.POSITIVE_INFINITY])(
  "an amount of %d is a defect, not a debt",
  async (amount) => {
    const { throttle } = start(10);
    await expect(throttle.take(amount)).rejects.toThrow("amounts");
    await throttle.take(1);
  },
);

test("a clock that is set back lends nothing and takes nothing away", async () => {
  const { throttle, pass, setBack } = start(100);
  const one = flow(throttle, 10);
  await pass(10_000);
  const before = one.taken;
  setBack(5000);
  await pass(10_000);
  expect(one.taken - before).toBeLessThanOrEqual(1010);
});

test("a store within limits: bytes by direction, and every call", async () => {
  const { clock, pass } = createStoppedClock();
  const make = (what: string, rate: Rate) => createThrottle({ clock, what, rate });
  const upload = make("upload", 1000);
  const download = make("download", 500);
  const requests = make("requests", "off");
  const store = throttled(createMemoryObjectStore(), {
    upload: [upload],
    download: [download],
    requests: [requests],
  });
  await store.put("a", new Uint8Array(10_000));
  let isPut = false;
  const put = store.put("b", new Uint8Array(1)).then(() => {
    isPut = true;
  });
  await pass(9800);
  expect(isPut).toBe(false);
  await pass(200);
  await put;
  const whole = store.get("a");
  await pass(0);
  expect((await whole).length).toBe(10_000);
  let ranged: number | undefined;
  const range = store.getRange("a", { offset: 0, length: 5 }).then((bytes) => {
    ranged = bytes.length;
  });
  await pass(19_000);
  expect(ranged).toBeUndefined();
  await pass(1000);
  await range;
  requests.setRate(0);
  await expect(store.head("a")).rejects.toMatchObject({ code: "limit.zero" });
  requests.setRate("off");
  download.setRate(0);
  await expect(store.get("a")).rejects.toMatchObject({ code: "limit.zero" });
  expect((await store.head("a"))?.sizeBytes).toBe(10_000);
});
