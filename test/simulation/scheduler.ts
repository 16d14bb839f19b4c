import { createHash } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Seeded } from "./seeded.ts";

/**
 * One event loop for everything that takes time. Whatever runs, runs because one event was taken out here; the next is taken when nothing
 * is left to do without another one. Of events that are due together the seed chooses.
 */
export type Scheduler = {
  /** True milliseconds since 1970; no actor sees them. */
  readonly now: () => number;
  /** `run` answers whether it woke any code that has to come to rest before the next event. */
  readonly after: (delayMs: number, run: () => boolean) => void;
  /** Takes events until the condition holds. Fails when none is left before, or after so many. */
  readonly runUntil: (isDone: () => boolean, stepsMax: number) => Promise<void>;
  readonly steps: () => number;
  readonly log: (line: string) => void;
  /** Over all lines so far. */
  readonly logHash: () => string;
  readonly logTail: () => readonly string[];
};

type Event = { readonly at: number; readonly tie: number; readonly run: () => boolean };

const startMs = Date.parse("2026-11-20T12:00:00Z");

export function createScheduler(
  seeded: Seeded,
  o: { readonly logLinesKept: number; readonly onLine?: ((line: string) => void) | undefined },
): Scheduler {
  const heap = createHeap();
  const hash = createHash("sha256");
  const tail: string[] = [];
  let now = startMs;
  let steps = 0;

  function log(line: string): void {
    const text = `${String(steps).padStart(6)} ${formatTime(now - startMs)} ${line}`;
    hash.update(text);
    o.onLine?.(text);
    tail.push(text);
    if (tail.length > 2 * o.logLinesKept) tail.splice(0, o.logLinesKept);
  }

  return {
    now: () => now,
    steps: () => steps,
    log,
    logHash: () => hash.copy().digest("hex"),
    logTail: () => tail.slice(-o.logLinesKept),
    after: (delayMs, run) => heap.push({ at: now + delayMs, tie: seeded.next(), run }),
    runUntil: async (isDone, stepsMax) => {
      const limit = steps + stepsMax;
      // What was started outside of events comes to rest first.
      await nextTurn();
      while (!isDone()) {
        const event = heap.pop();
        if (event === undefined) throw new Error("stuck: somebody waits, but nothing is under way");
        if (steps >= limit) throw new Error(`not done after ${stepsMax} steps`);
        steps += 1;
        now = Math.max(now, event.at);
        // A turn of Node's own loop comes when no microtask is left.
        if (event.run()) await nextTurn();
      }
    },
  };
}

/** `3d04:05:06.789` since the beginning. */
function formatTime(elapsedMs: number): string {
  const two = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  const days = Math.floor(elapsedMs / 86_400_000);
  const clock = `${two((elapsedMs / 3_600_000) % 24)}:${two((elapsedMs / 60_000) % 60)}`;
  return `${days}d${clock}:${((elapsedMs / 1000) % 60).toFixed(3).padStart(6, "0")}`;
}

function createHeap() {
  const events: Event[] = [];
  const isBefore = (left: Event, right: Event): boolean =>
    left.at < right.at || (left.at === right.at && left.tie < right.tie);

  function push(event: Event): void {
    let at = events.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = events[above];
      if (parent === undefined || !isBefore(event, parent)) break;
      events[at] = parent;
      at = above;
    }
    events[at] = event;
  }

  function pop(): Event | undefined {
    const first = events[0];
    const last = events.pop();
    if (first === undefined || last === undefined || events.length === 0) return first;
    let at = 0;
    for (;;) {
      const left = events[2 * at + 1];
      const right = events[2 * at + 2];
      const isRight = right !== undefined && left !== undefined && isBefore(right, left);
      const child = isRight ? right : left;
      if (child === undefined || !isBefore(child, last)) break;
      events[at] = child;
      at = 2 * at + (isRight ? 2 : 1);
    }
    events[at] = last;
    return first;
  }

  return { push, pop };
}
