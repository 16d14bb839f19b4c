import { strict as assert } from "node:assert";
import { Failure, isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { toHex } from "../format/bytes.ts";
import type { Repository } from "../repository.ts";
import type { SessionStart } from "../session/session-record.ts";
import { isOpen, type SessionState } from "../session/session-state.ts";
import type { Session } from "../session/sessions.ts";
import {
  clockDifferenceMsMax,
  collectorRenewMs,
  collectorSilenceSeconds,
  waitStepMs,
  yieldLooks,
  yieldStepMs,
} from "./safety.ts";
import type { SilenceWatch } from "./silence.ts";

/** One collector works at a time: several would be safe, but each would read all that the others read. */
export type CollectorSession = {
  /** Undefined where the store had no space even for its start. */
  readonly sessionId: string | undefined;
  /** 32 hexadecimal digits, for the name of a new object. */
  readonly newId: () => string;
  /** To be called all the time: shows a sign of life when it is due. Fails with `session.ended` when another collector has fenced this one. */
  readonly alive: () => Promise<void>;
  /** Fails with `session.ended` when another collector has fenced this one: what was put before is then not known to be seen by it. */
  readonly confirm: () => Promise<void>;
  readonly end: () => Promise<void>;
};

type Options = {
  readonly repository: Repository;
  readonly watch: SilenceWatch;
  readonly holder: string;
  /** How long it may wait for one that is silent to be silent long enough. */
  readonly waitMs: number;
  readonly logger: Logger;
  readonly options: CallOptions;
};

/** Fails with `busy` while another works. What waits here, is noted: the next try knows for how long the other has been silent. */
export async function beginCollector(o: Options): Promise<CollectorSession> {
  const { repository, options } = o;
  const session = await putStart(o);
  if (session !== undefined) o.watch.ignore(session.sessionId);
  const { clock, random } = repository;
  const end = async (): Promise<void> => await session?.abort();
  try {
    if (session !== undefined) await refuseWrongClock(o, session.sessionId);
    await yieldToOthers(o, session?.sessionId);
  } catch (error) {
    // What was seen by a clock that is wrong must not count later.
    const isSeenRightly = !isFailure(error, "clock.wrong");
    await endQuietly({ end }, isSeenRightly ? o.watch : undefined, o.logger);
    throw error;
  }
  let renewedAt = clock.now();
  return {
    sessionId: session?.sessionId,
    newId: () => toHex(session?.newId() ?? random(16)),
    alive: async () => {
      options.signal?.throwIfAborted();
      const sinceMs = clock.now() - renewedAt;
      // A clock that was set back must not end the renewing.
      if (session === undefined || (sinceMs >= 0 && sinceMs < collectorRenewMs)) return;
      await session.renew(options);
      renewedAt = clock.now();
    },
    confirm: async () => {
      assert(session !== undefined, "who has no session makes nothing");
      await session.renew(options);
      renewedAt = clock.now();
    },
    end,
  };
}

/** Also when the collection failed: what it saw counts for the next run. Its own failure must not hide that one's. */
export async function endQuietly(
  collector: Pick<CollectorSession, "end">,
  watch: SilenceWatch | undefined,
  logger: Logger,
): Promise<void> {
  const quietly = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      logger.warn(`${what}: the next run waits for longer`, { reason });
    }
  };
  await quietly("what was seen of sessions is not noted", async () => await watch?.save({}));
  await quietly("the collector's session was left open", collector.end);
}

/** Collection frees space; it must be able to begin without any. */
async function putStart(o: Options): Promise<Session | undefined> {
  const { sessions, random } = o.repository;
  const sessionId = toHex(random(8));
  try {
    const { holder } = o;
    const silenceSeconds = collectorSilenceSeconds;
    const start = { kind: "maintenance", holder, pins: [], silenceSeconds, sessionId } as const;
    return await sessions.begin(start, o.options);
  } catch (error) {
    if (!isFailure(error, "storage.no-space")) {
      // Its start may be there: nobody shall wait for it. A store that does not answer leaves it to its silence.
      await sessions.fence([sessionId]).catch(() => undefined);
      throw error;
    }
    o.logger.warn("no space for the collector's session: going on without", {
      reason: error.message,
    });
    return undefined;
  }
}

/** Nothing is lost by a wrong clock, but jobs that are well may be taken for dead. */
async function refuseWrongClock(
  { repository, logger, options }: Options,
  sessionId: string,
): Promise<void> {
  const { store, clock } = repository;
  const states = await repository.sessions.list({ ...options, sessionIds: [sessionId] });
  const [start = ""] = states.get(sessionId)?.starts ?? [];
  const storedAtMs = start === "" ? undefined : (await store.head(start, options))?.storedAtMs;
  if (storedAtMs === undefined) {
    logger.info("the store does not tell its time: the clock is not compared");
    return;
  }
  const differenceMs = storedAtMs - clock.now();
  if (Math.abs(differenceMs) <= clockDifferenceMsMax) return;
  const minutes = Math.round(Math.abs(differenceMs) / 60_000);
  throw new Failure("clock.wrong", {
    message: `the clock of ${store.url} is ${minutes} minutes ${differenceMs > 0 ? "ahead of" : "behind"} this machine's: nothing is removed until they agree within ${clockDifferenceMsMax / 60_000} minutes`,
  });
}

/**
 * Of those that see each other, all but the one with the smallest id yield at once. That one looks a few times whether the others yield: those
 * that came first don't, for they didn't see it. Whoever is silent for too long is fenced.
 */
async function yieldToOthers(o: Options, own: string | undefined): Promise<void> {
  const { repository, watch, options } = o;
  const { clock } = repository;
  for (let look = 1, waitedMs = 0; ; look += 1) {
    const states = await repository.sessions.list(options);
    watch.see(states);
    const others = await openCollectors(repository, [...states.values()], own, options);
    const silent = others.filter(
      ({ state, start }) => watch.silentMs(state.sessionId) >= start.silenceSeconds * 1000,
    );
    if (silent.length > 0) {
      const ids = silent.map(({ state }) => state.sessionId);
      o.logger.warn("silent collectors are fenced", { sessions: ids });
      await repository.sessions.fence(ids, options);
    }
    const working = others.filter((other) => !silent.includes(other));
    const [first] = working;
    if (first === undefined) return;
    const isSmallest = own !== undefined && working.every(({ state }) => own < state.sessionId);
    const mayLook = (isSmallest && look <= yieldLooks) || waitedMs < o.waitMs;
    if (!mayLook) throw busy(first, watch);
    const stepMs = look <= yieldLooks ? yieldStepMs : waitStepMs;
    await clock.sleep(stepMs, options.signal);
    watch.slept(stepMs);
    waitedMs += stepMs;
  }
}

type Other = { readonly state: SessionState; readonly start: SessionStart };

async function openCollectors(
  repository: Repository,
  states: readonly SessionState[],
  own: string | undefined,
  options: CallOptions,
): Promise<readonly Other[]> {
  const others: Other[] = [];
  for (const state of states) {
    if (!isOpen(state) || state.sessionId === own) continue;
    const start = await readStartOf(repository, state, options);
    if (start?.kind === "maintenance") others.push({ state, start });
  }
  return others;
}

/** Undefined when it does not open or is gone. */
export async function readStartOf(
  repository: Repository,
  state: SessionState,
  options: CallOptions,
): Promise<SessionStart | undefined> {
  const [name] = state.starts;
  if (name === undefined) return undefined;
  try {
    return await repository.sessions.readStart(name, options);
  } catch (error) {
    if (isFailure(error, "object.corrupt") || isFailure(error, "object.not-found")) {
      return undefined;
    }
    throw error;
  }
}

function busy({ state, start }: Other, watch: SilenceWatch): Failure {
  const silentMinutes = Math.floor(watch.silentMs(state.sessionId) / 60_000);
  const endsMinutes = Math.ceil(start.silenceSeconds / 60);
  return new Failure("busy", {
    message: `the repository is being maintained by ${start.holder} since ${start.startedAt}; if it is dead, it is taken for that after ${endsMinutes} minutes without a sign (${silentMinutes} so far)`,
    sessionId: state.sessionId,
  });
}
