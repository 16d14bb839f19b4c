import type { Logger } from "../../ports/logger.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import { isOpen, type SessionState, type SessionStates } from "../session/session-state.ts";
import { type FencedSession, jobSilenceSeconds } from "../session/sessions.ts";
import type { OpenSession } from "./collect-report.ts";
import { type CollectorSession, readStartOf } from "./collector-session.ts";
import type { ListInWork } from "./condemn.ts";
import { waitStepMs } from "./safety.ts";
import type { SilenceWatch } from "./silence.ts";

type Waiter = {
  readonly repository: Repository;
  readonly collector: CollectorSession;
  readonly watch: SilenceWatch;
  readonly logger: Logger;
};

export type Waited = {
  readonly lists: readonly ListInWork[];
  readonly fenced: readonly FencedSession[];
  readonly waitedMs: number;
};

/**
 * Waits until whom the lists wait for has ended, or shown no sign of life for so long that it is fenced; and as long as further sessions may
 * turn out to be dead within `waitMs`. Lists whose sessions are still open then are the next run's.
 */
export async function waitForSessions(
  o: Waiter & {
    readonly lists: readonly ListInWork[];
    readonly waitMs: number;
    readonly onWait: (sessions: number) => void;
  },
  options: CallOptions,
): Promise<Waited> {
  const { repository, watch } = o;
  const fenced: FencedSession[] = [];
  let waitedMs = 0;
  for (;;) {
    const sessions = await repository.sessions.list(options);
    watch.see(sessions);
    const looked = await fenceSilent(o, sessions, options);
    fenced.push(...looked.fenced);
    const ended = new Set(looked.fenced.map(({ sessionId }) => sessionId));
    const lists = o.lists.map((list) => ({
      ...list,
      waitingFor: list.waitingFor.filter((id) => isOpen(sessions.get(id)) && !ended.has(id)),
    }));
    const waitingFor = new Set(lists.flatMap((list) => list.waitingFor));
    const leftMs = o.waitMs - waitedMs;
    const mayBeDead = looked.open.some(({ state, silenceMs }) => {
      const silentMs = watch.silentMs(state.sessionId);
      return silentMs >= waitedMs && silenceMs - silentMs <= leftMs;
    });
    if (leftMs <= 0 || (waitingFor.size === 0 && !mayBeDead)) return { lists, fenced, waitedMs };
    o.onWait(Math.max(1, waitingFor.size));
    const stepMs = Math.min(waitStepMs, leftMs);
    await repository.clock.sleep(stepMs, options.signal);
    watch.slept(stepMs);
    waitedMs += stepMs;
    await o.collector.alive();
  }
}

type Looked = {
  readonly fenced: readonly FencedSession[];
  readonly open: readonly { readonly state: SessionState; readonly silenceMs: number }[];
};

/** Ends the sessions that have been silent for as long as they said they would never be, and those whose fencing was begun. */
export async function fenceSilent(
  { repository, collector, watch, logger }: Waiter,
  sessions: SessionStates,
  options: CallOptions,
): Promise<Looked> {
  const open: { state: SessionState; silenceMs: number }[] = [];
  const silent: string[] = [];
  for (const state of sessions.values()) {
    if (!isOpen(state) || state.sessionId === collector.sessionId) continue;
    const start = await readStartOf(repository, state, options);
    const silenceMs = (start?.silenceSeconds ?? jobSilenceSeconds) * 1000;
    const isSilent = watch.silentMs(state.sessionId) >= silenceMs;
    if (isSilent || state.fences.length > 0) silent.push(state.sessionId);
    else open.push({ state, silenceMs });
  }
  if (silent.length > 0) logger.warn("silent sessions are fenced", { sessions: silent });
  return { fenced: await repository.sessions.fence(silent, options), open };
}

/** For the report: who is waited for. */
export async function describeSessions(
  { repository, watch }: Pick<Waiter, "repository" | "watch">,
  sessions: SessionStates,
  ids: Iterable<string>,
  options: CallOptions,
): Promise<readonly OpenSession[]> {
  const described: OpenSession[] = [];
  for (const sessionId of new Set(ids)) {
    const state = sessions.get(sessionId);
    if (!isOpen(state) || state === undefined) continue;
    const start = await readStartOf(repository, state, options);
    described.push({
      sessionId,
      kind: start?.kind ?? "unknown",
      holder: start?.holder ?? "unknown",
      startedAt: start?.startedAt ?? "",
      silentForSeconds: Math.floor(watch.silentMs(sessionId) / 1000),
    });
  }
  return described;
}
