import { strict as assert } from "node:assert";
import { Failure } from "../domain/failure.ts";
import type { Rate } from "../domain/rate.ts";
import type { Clock } from "../ports/clock.ts";

/**
 * A limit that many share: who takes first is served first. Over any time no more than rate × time passes, besides a tenth
 * of a second's worth at the begin and the last thing taken, which is let through whole and waited for afterwards. A changed
 * rate holds at once, also for those who wait.
 */
export type Throttle = {
  /**
   * Waits until so much may pass. Fails with `limit.zero` while the rate is 0, also for nothing, and with the signal's reason when it
   * aborts; then nothing was taken.
   */
  readonly take: (amount: number, signal?: AbortSignal) => Promise<void>;
  readonly setRate: (rate: Rate) => void;
  readonly rate: () => Rate;
};

/** What may pass at once after a pause. */
const burstSeconds = 0.1;

type Waiter = {
  readonly amount: number;
  readonly pass: () => void;
  readonly refuse: (reason: unknown) => void;
};

export function createThrottle(o: {
  readonly clock: Clock;
  /** For messages: `upload to repository lab`. */
  readonly what: string;
  readonly rate?: Rate;
}): Throttle {
  const { clock } = o;
  let rate: Rate = o.rate ?? "off";
  /** What may pass now; below 0 what passed too early. */
  let level = burstOf(rate);
  let filledAt = clock.now();
  const waiting = new Set<Waiter>();
  let pumping = false;
  let changed = new AbortController();

  /** A clock that was set back gives nothing. */
  function fill(): void {
    const now = clock.now();
    if (rate !== "off") {
      level = Math.min(level + (Math.max(now - filledAt, 0) / 1000) * rate, burstOf(rate));
    }
    filledAt = now;
  }

  async function pump(): Promise<void> {
    if (pumping) return;
    pumping = true;
    try {
      for (const waiter of waiting) {
        while (waiting.has(waiter)) {
          fill();
          if (rate === "off" || level >= 0) {
            waiting.delete(waiter);
            if (rate === 0) waiter.refuse(refusal());
            else {
              if (rate !== "off") level -= waiter.amount;
              waiter.pass();
            }
          } else if (rate === 0) {
            waiting.delete(waiter);
            waiter.refuse(refusal());
          } else {
            const { signal } = changed;
            // Woken early by a change; a clock may also wake a little early by itself.
            await clock
              .sleep(Math.max(Math.ceil((-level / rate) * 1000), 1), signal)
              .catch((error) => {
                if (!signal.aborted) throw error;
              });
          }
        }
      }
    } catch (error) {
      for (const waiter of waiting) waiter.refuse(error);
      waiting.clear();
    } finally {
      pumping = false;
    }
  }

  /** Those who wait look again. */
  function wake(): void {
    changed.abort();
    changed = new AbortController();
  }

  function refusal(): Failure {
    return new Failure("limit.zero", { message: `the limit of ${o.what} is 0: nothing may pass` });
  }

  return {
    rate: () => rate,
    take: async (amount, signal) => {
      assert(amount >= 0 && Number.isFinite(amount), "a limit counts whole, known amounts");
      signal?.throwIfAborted();
      if (rate === "off") return;
      if (rate === 0) throw refusal();
      await new Promise<void>((resolve, reject) => {
        const settled = (): void => signal?.removeEventListener("abort", stop);
        const waiter: Waiter = {
          amount,
          pass: () => {
            settled();
            resolve();
          },
          refuse: (reason) => {
            settled();
            reject(reason);
          },
        };
        function stop(): void {
          waiting.delete(waiter);
          waiter.refuse(signal?.reason);
          wake();
        }
        signal?.addEventListener("abort", stop, { once: true });
        waiting.add(waiter);
        void pump();
      });
    },
    setRate: (next) => {
      if (next === rate) return;
      fill();
      const wasOff = rate === "off";
      rate = next;
      level = wasOff ? burstOf(rate) : Math.min(level, burstOf(rate));
      wake();
    },
  };
}

function burstOf(rate: Rate): number {
  return rate === "off" ? 0 : rate * burstSeconds;
}

/** One after the other: what passes is within all of them. */
export async function takeAll(
  throttles: readonly Throttle[],
  amount: number,
  signal?: AbortSignal,
): Promise<void> {
  for (const throttle of throttles) await throttle.take(amount, signal);
}
