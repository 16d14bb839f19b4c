import type { Clock } from "@holdfast/shared/ports/clock";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import type { Counters } from "./counters.ts";
import type { FaultRates } from "./faults.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Seeded } from "./seeded.ts";

/**
 * One program that runs somewhere. Everything it waits for reaches it through `deliver`, so it can die or fall asleep at every
 * await; after its death nothing of it ever runs again.
 */
export type Process = {
  readonly name: string;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly isAlive: () => boolean;
  /** It may be told of what has long changed. */
  readonly hasSlept: () => boolean;
  readonly kill: () => void;
  /** It hears nothing for this time. */
  readonly doze: (lengthMs: number) => void;
  /** Runs this in the process, unless it is dead; later, when it sleeps. Answers whether it ran now. */
  readonly deliver: (what: string, run: () => void) => boolean;
  /** Resolves in the process after this time. */
  readonly pass: (what: string, delayMs: number, signal?: AbortSignal) => Promise<void>;
};

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

export function createProcess(o: {
  readonly name: string;
  readonly scheduler: Scheduler;
  readonly rates: () => FaultRates;
  readonly faults: Seeded;
  readonly random: RandomBytes;
  readonly skewMs: number;
  readonly counters: Counters;
  readonly onDeath: () => void;
}): Process {
  const { name, scheduler, faults, counters } = o;
  let alive = true;
  let asleepUntil = 0;

  function kill(): void {
    if (!alive) return;
    alive = false;
    o.onDeath();
  }

  function dozeMs(): number {
    const kind = faults.below(4);
    if (kind === 0) return faults.between(1, 60) * 1000;
    if (kind === 1) return faults.between(1, 90) * minuteMs;
    if (kind === 2) return faults.between(1, 30) * hourMs;
    return faults.between(1, 12) * 24 * hourMs;
  }

  function deliver(what: string, run: () => void): boolean {
    if (!alive) return false;
    const rates = o.rates();
    if (asleepUntil <= scheduler.now()) {
      if (rates.crash > 0 && faults.chance(rates.crash)) {
        counters.count("fault: crash");
        scheduler.log(`${name} dies instead of hearing of ${what}`);
        kill();
        return false;
      }
      if (rates.doze > 0 && faults.chance(rates.doze)) {
        const lengthMs = dozeMs();
        counters.count(lengthMs > 24 * hourMs ? "fault: sleep of days" : "fault: sleep");
        scheduler.log(`${name} sleeps for ${Math.round(lengthMs / 1000)} s before ${what}`);
        asleepUntil = scheduler.now() + lengthMs;
      }
    }
    if (asleepUntil > scheduler.now()) {
      scheduler.after(asleepUntil - scheduler.now() + faults.below(1000), () => deliver(what, run));
      return false;
    }
    run();
    return true;
  }

  function pass(what: string, delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const stop = (): void => reject(signal?.reason);
      signal?.addEventListener("abort", stop, { once: true });
      scheduler.after(delayMs, () => {
        if (signal?.aborted === true) return false;
        return deliver(what, () => {
          signal?.removeEventListener("abort", stop);
          resolve();
        });
      });
    });
  }

  return {
    name,
    random: o.random,
    isAlive: () => alive,
    hasSlept: () => asleepUntil > 0,
    kill,
    doze: (lengthMs) => {
      asleepUntil = Math.max(asleepUntil, scheduler.now() + lengthMs);
    },
    deliver,
    pass,
    clock: {
      now: () => scheduler.now() + o.skewMs,
      sleep: (delayMs, signal) => pass("the end of a wait", Math.max(1, delayMs), signal),
    },
  };
}
