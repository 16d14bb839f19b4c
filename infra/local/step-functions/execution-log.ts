import { type AppendLog, openAppendLog } from "../durable/append-log.ts";
import type { Json, JsonObject } from "../json.ts";
import { StateError, Suspended } from "./state-error.ts";

/**
 * The durable history of one execution: what GetExecutionHistory shows, and at the same time what a restart replays.
 * Every event sits in a *slot*, a name derived from its place in the workflow (state number in its branch, attempt,
 * kind). Writing to a taken slot returns what is there: the interpreter can therefore run again from the beginning
 * after a crash, and finds each result where it left it.
 */
export type HistoryEvent = {
  readonly id: number;
  readonly previousId: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly slot: string;
  readonly type: string;
  /** Shown in the history under the type's own name. */
  readonly details?: JsonObject;
  /** Needed by the replay, not shown. */
  readonly internal?: JsonObject;
};

export type NewEvent = {
  readonly slot: string;
  readonly type: string;
  readonly previousId: number;
  readonly details?: JsonObject;
  readonly internal?: JsonObject;
};

export type ExecutionLog = {
  readonly events: readonly HistoryEvent[];
  find(slot: string): HistoryEvent | undefined;
  /** The event now in the slot: this one, or the one that was there first. Not yet safe on the disk: see `flush`. */
  write(event: NewEvent): HistoryEvent;
  flush(): Promise<void>;
  /** Resolves when the slot is taken; rejects with `Suspended` when the signal is aborted. */
  filled(slot: string, signal: AbortSignal): Promise<void>;
  close(): void;
};

/** The quota of Step Functions for standard workflows. */
export const historyEventsMax = 25_000;

export function openExecutionLog(path: string, now: () => number): ExecutionLog {
  const { log, records } = openAppendLog(path);
  return createExecutionLog(log, records as unknown as readonly HistoryEvent[], now);
}

function createExecutionLog(
  log: AppendLog,
  earlier: readonly HistoryEvent[],
  now: () => number,
): ExecutionLog {
  const events = [...earlier];
  const slots = new Map(events.map((event) => [event.slot, event]));
  const waiters = new Map<string, Set<() => void>>();
  let closed = false;

  return {
    events,
    find: (slot) => slots.get(slot),
    write: (fields) => {
      const existing = slots.get(fields.slot);
      if (existing !== undefined) return existing;
      if (closed) throw new Suspended();
      // The last event is kept for the execution's end.
      if (events.length >= historyEventsMax - 1 && !fields.type.startsWith("Execution")) {
        throw new StateError(
          "States.Runtime",
          `The execution reached the maximum number of history events (${historyEventsMax}).`,
        );
      }
      const event: HistoryEvent = { id: events.length + 1, at: now(), ...fields };
      log.append(event as unknown as Json);
      events.push(event);
      slots.set(event.slot, event);
      for (const wake of waiters.get(event.slot) ?? []) wake();
      return event;
    },
    flush: () => log.flush(),
    filled: (slot, signal) =>
      new Promise((resolve, reject) => {
        if (slots.has(slot)) return resolve();
        if (signal.aborted) return reject(new Suspended());
        const set = waiters.get(slot) ?? new Set();
        waiters.set(slot, set);
        const end = () => {
          set.delete(end);
          if (set.size === 0) waiters.delete(slot);
          signal.removeEventListener("abort", end);
          if (slots.has(slot)) resolve();
          else reject(new Suspended());
        };
        set.add(end);
        signal.addEventListener("abort", end, { once: true });
      }),
    close: () => {
      closed = true;
      log.close();
    },
  };
}

/** Types whose details the API puts into one member for all states. */
const sharedMembers = [
  [/StateEntered$/, "stateEnteredEventDetails"],
  [/StateExited$/, "stateExitedEventDetails"],
] as const;

export function toApiEvent(event: HistoryEvent): JsonObject {
  const { type, details, internal } = event;
  const shared = sharedMembers.find(([pattern]) => pattern.test(type))?.[1];
  const member = shared ?? `${type.charAt(0).toLowerCase()}${type.slice(1)}EventDetails`;
  const output = internal?.["output"];
  const shown =
    output === undefined || details === undefined
      ? details
      : { ...details, output: JSON.stringify(output), outputDetails: { truncated: false } };
  return {
    id: event.id,
    previousEventId: event.previousId,
    timestamp: event.at / 1000,
    type,
    ...(shown === undefined ? {} : { [member]: shown }),
  };
}

/**
 * Whether a task's attempt (its slot without the kind) can still be answered: no outcome of it, of any Map or
 * Parallel attempt around it, or of the execution is written.
 */
export function isOpen(log: ExecutionLog, attempt: string): boolean {
  if (log.find("end") !== undefined || log.find(`${attempt}:outcome`) !== undefined) return false;
  const parts = attempt.split("/");
  for (let length = 1; length < parts.length; length += 2) {
    const around = parts.slice(0, length).join("/");
    if (log.find(`${around}:outcome`) !== undefined) return false;
  }
  return true;
}
