import { strict as assert } from "node:assert";
import { Failure } from "../../domain/failure.ts";
import type { Clock } from "../../ports/clock.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { toHex } from "../format/bytes.ts";
import { type NewObjects, namedBy, type RepositoryObjects } from "../objects.ts";
import { type KnownDamage, readKnownDamage } from "../pack/damage.ts";
import type { Condemned, CondemnedLists } from "./condemned.ts";
import {
  decodeEnd,
  decodeStart,
  encodeEnd,
  encodeMark,
  encodeStart,
  type SessionEnd,
  type SessionKind,
  type SessionStart,
} from "./session-record.ts";
import {
  addName,
  emptyState,
  isCommitted,
  isOpen,
  isSessionId,
  type SessionState,
  type SessionStates,
  sessionOfRoot,
  sessionsFolder,
} from "./session-state.ts";
import type { SignedNames } from "./signed-name.ts";

/**
 * Sessions let writers, readers and collectors work at the same time without a lock (docs/decisions/0005). Everything rests on "put yours, then
 * look for the other's": a session puts its start and then reads what is condemned, a collector puts what it condemns and then looks who has a
 * session; a writer puts its root and then looks for a fence, a collector puts its fence and then looks for roots.
 */
export interface Sessions {
  /**
   * Begins, or goes on with `sessionId` where that is open already: a job's first stage may run twice. Fails with `session.ended` where that
   * session has ended or was fenced.
   */
  begin(o: BeginSession, options?: CallOptions): Promise<Session>;
  /**
   * Fails with `session.ended` when it was never begun, has ended or was fenced. With `alsoCommitted`, one that has ended with a point is given,
   * too: for repeating the commit, whose answer may have been lost.
   */
  resume(
    sessionId: string,
    options?: CallOptions & { readonly alsoCommitted?: boolean },
  ): Promise<Session>;
  /** All sessions, or those of these ids, from names alone. */
  list(options?: ListSessionsOptions): Promise<SessionStates>;
  /** Whether a session may build on this root: it is there, is a point, and is not condemned; which is looked up now. */
  isUsablePoint(session: Session, rootKey: string, options?: CallOptions): Promise<boolean>;
  /** What a start says. Fails with `object.corrupt`, `object.not-found`. */
  readStart(startName: string, options?: CallOptions): Promise<SessionStart>;
  /** Which root an end names. Fails with `object.corrupt`, `object.not-found`. */
  readEnd(endName: string, options?: CallOptions): Promise<SessionEnd>;
  /**
   * For collectors: ends sessions whose holders are silent. Roots that they have put already become points, a session without one ends without.
   * A holder that wakes up finds its commit refused, or done.
   */
  fence(sessionIds: readonly string[], options?: CallOptions): Promise<readonly FencedSession[]>;
  readonly condemned: CondemnedLists;
}

export type BeginSession = {
  readonly kind: SessionKind;
  readonly holder: string;
  /** Roots that it builds on or reads. */
  readonly pins: readonly string[];
  readonly silenceSeconds: number;
  readonly sessionId?: string | undefined;
};

export type Session = {
  /** 8 bytes in hexadecimal. */
  readonly sessionId: string;
  /** What may not be used; as it was when the session began or was resumed. */
  readonly condemned: Condemned;
  /** What is known to be lost and so is stored again; as it was then, too. */
  readonly damage: KnownDamage;
  /** 16 bytes, the session's 8 first: for pack ids and names. */
  readonly newId: () => Uint8Array;
  readonly newRootName: (prefix: string) => string;
  /** Seals and puts under names of the session. */
  readonly objects: NewObjects;
  /** Shows that the holder lives. Fails with `session.ended`: then nothing that it still does can count. */
  readonly renew: (options?: CallOptions) => Promise<void>;
  /**
   * Makes the root a point; it is in the store. Repeating it is a success. Fails with `session.ended`: then the root is no point, and
   * does not become one unless another attempt in the same session has put a root, too.
   */
  readonly commit: (rootKey: string, options?: CallOptions) => Promise<void>;
  /**
   * Ends it without a point: after a failure, and where none was to be made. Once a root was tried to be put it does nothing: somebody may have
   * seen a point already, so a collector decides after the session's silence.
   */
  readonly abort: (options?: CallOptions) => Promise<void>;
};

export type ListSessionsOptions = CallOptions & { readonly sessionIds?: readonly string[] };

export type FencedSession = { readonly sessionId: string; readonly adopted: readonly string[] };

/**
 * How long a session may show no sign of life before a collector may take it for dead. A job's stages wait in queues, also while all
 * movers of a site are away for a night; fencing too early costs the whole job, too late only keeps garbage for a day.
 */
export const jobSilenceSeconds = 24 * 3600;
/** A process that works alone renews all the time; half an hour is six renewals, or a laptop closed for lunch. */
export const standaloneSilenceSeconds = 30 * 60;
/** Small enough that several may fail before the silence is over. */
export const renewIntervalMs = 5 * 60 * 1000;

/** Above this many, all are listed at once: a listing of one session costs as much as a page of 1000 names. */
const lookedUpMax = 100;
const lookupsInFlight = 8;

type Parts = {
  readonly store: ObjectStore;
  readonly objects: RepositoryObjects;
  readonly names: SignedNames;
  readonly condemned: CondemnedLists;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly logger: Logger;
};

export function createSessions(parts: Parts): Sessions {
  const { store, objects, names, condemned } = parts;

  async function listPrefix(
    prefix: string,
    states: Parameters<typeof addName>[0],
    options?: CallOptions,
  ): Promise<void> {
    for await (const { key } of store.list(prefix, options)) {
      if (!addName(states, key, names)) parts.logger.warn("planted object ignored", { key });
    }
  }

  async function list({
    sessionIds,
    ...options
  }: ListSessionsOptions = {}): Promise<SessionStates> {
    const states: Parameters<typeof addName>[0] = new Map();
    if (sessionIds === undefined || sessionIds.length > lookedUpMax) {
      await listPrefix(sessionsFolder, states, options);
      return states;
    }
    for (let at = 0; at < sessionIds.length; at += lookupsInFlight) {
      const some = sessionIds.slice(at, at + lookupsInFlight);
      await Promise.all(some.map((id) => listPrefix(`${sessionsFolder}${id}/`, states, options)));
    }
    return states;
  }

  async function look(sessionId: string, options?: CallOptions): Promise<SessionState> {
    const states = await list({ ...options, sessionIds: [sessionId] });
    return states.get(sessionId) ?? emptyState(sessionId);
  }

  async function put(
    sessionId: string,
    stem: string,
    body: Uint8Array,
    options?: CallOptions,
  ): Promise<string> {
    const name = names.sign(`${sessionsFolder}${sessionId}/${stem}`);
    await objects.put(name, "session", body, options);
    return name;
  }

  const putEnd = (rootKey: string, options?: CallOptions): Promise<string> => {
    const its = sessionOfRoot(rootKey);
    assert(its !== undefined, `${rootKey} is no root's name`);
    return put(its.sessionId, `end-${its.rootEnd}-`, encodeEnd({ v: 1, rootKey }), options);
  };
  const putEndNone = (sessionId: string, options?: CallOptions): Promise<string> =>
    put(sessionId, "end-none-", encodeMark(), options);

  /**
   * Whether another attempt in the same session has put a root as well, for the same VM. If it looked before there was a fence, its root was
   * there before that, too: whoever has seen the fence sees it, and must not say that the session has no point.
   */
  async function hasSibling(rootKey: string, options?: CallOptions): Promise<boolean> {
    const folder = rootKey.slice(0, rootKey.lastIndexOf("/") + 1);
    const sessionId = sessionOfRoot(rootKey)?.sessionId;
    for await (const { key } of store.list(folder, options)) {
      if (key !== rootKey && sessionOfRoot(key)?.sessionId === sessionId) return true;
    }
    return false;
  }

  /** Reads what is condemned only now: after the session is there for every collector to see. */
  async function open(sessionId: string, options?: CallOptions): Promise<Session> {
    const forbidden = await condemned.load(options);
    const damage = await readKnownDamage(parts, options);
    const prefix = Buffer.from(sessionId, "hex");
    const newId = (): Uint8Array => Buffer.concat([prefix, parts.random(8)]);
    let rootTried = false;
    return {
      sessionId,
      condemned: forbidden,
      damage,
      newId,
      newRootName: (start) => {
        rootTried = true;
        return `${start}${sessionId}${toHex(parts.random(8))}`;
      },
      objects: namedBy(objects, newId),
      renew: async (its) => {
        await put(sessionId, "renew-", encodeMark(), its);
        const state = await look(sessionId, its);
        // A renewal meets a commit that is done but has not been answered yet: nothing is lost, so nothing is to be stopped.
        if (state.ends.size === 0 || state.endNones.length > 0) refuseEnded(state);
      },
      commit: async (rootKey, its) => {
        const root = sessionOfRoot(rootKey);
        assert(root?.sessionId === sessionId, `${rootKey} is not of session ${sessionId}`);
        const state = await look(sessionId, its);
        if (isCommitted(rootKey, new Map([[sessionId, state]]))) return;
        // Before it is told that there is no point: else a collector could still make the root one. Also where the start is missing: a
        // listing may be of another time.
        const hasEnded = state.ends.size > 0 || state.endNones.length > 0;
        const isFenced = state.fences.length > 0 || state.starts.length === 0;
        if (isFenced && !hasEnded && !(await hasSibling(rootKey, its))) {
          await putEndNone(sessionId, its);
        }
        refuseEnded(state);
        await putEnd(rootKey, its);
      },
      abort: async (its) => {
        if (!rootTried) await putEndNone(sessionId, its);
      },
    };
  }

  async function begin(o: BeginSession, options?: CallOptions): Promise<Session> {
    const sessionId = o.sessionId ?? toHex(parts.random(8));
    refuseInvalid(sessionId);
    const state =
      o.sessionId === undefined ? emptyState(sessionId) : await look(sessionId, options);
    if (isUntouched(state)) {
      const start = encodeStart({
        v: 1,
        kind: o.kind,
        holder: o.holder,
        pins: [...o.pins],
        silenceSeconds: o.silenceSeconds,
        startedAt: new Date(parts.clock.now()).toISOString(),
      });
      await put(sessionId, "start-", start, options);
    } else {
      refuseEnded(state);
    }
    return open(sessionId, options);
  }

  async function fence(
    sessionIds: readonly string[],
    options?: CallOptions,
  ): Promise<readonly FencedSession[]> {
    if (sessionIds.length === 0) return [];
    for (const sessionId of sessionIds) {
      refuseInvalid(sessionId);
      await put(sessionId, "fence-", encodeMark(), options);
    }
    const roots = new Map<string, string[]>(sessionIds.map((id) => [id, []]));
    for await (const { key } of store.list("points/", options)) {
      roots.get(sessionOfRoot(key)?.sessionId ?? "")?.push(key);
    }
    const fenced: FencedSession[] = [];
    for (const [sessionId, adopted] of roots) {
      // Also roots that cannot be read: the holder may have told that they are points.
      for (const rootKey of adopted) await putEnd(rootKey, options);
      if (adopted.length === 0) await putEndNone(sessionId, options);
      fenced.push({ sessionId, adopted });
    }
    return fenced;
  }

  return {
    begin,
    resume: async (sessionId, { alsoCommitted = false, ...options } = {}) => {
      refuseInvalid(sessionId);
      const state = await look(sessionId, options);
      const isCommittedOne =
        state.starts.length > 0 && state.ends.size > 0 && state.endNones.length === 0;
      if (!(alsoCommitted && isCommittedOne)) refuseEnded(state);
      return open(sessionId, options);
    },
    list,
    isUsablePoint: async (session, rootKey, options) => {
      const its = sessionOfRoot(rootKey);
      if (its === undefined || session.condemned.roots.has(rootKey)) return false;
      const states = await list({ ...options, sessionIds: [its.sessionId] });
      return isCommitted(rootKey, states) && (await store.head(rootKey, options)) !== undefined;
    },
    readStart: async (name, options) =>
      decodeStart(await objects.get(name, "session", options), name),
    readEnd: async (name, options) => decodeEnd(await objects.get(name, "session", options), name),
    fence,
    condemned,
  };
}

function isUntouched(state: SessionState): boolean {
  return (
    state.starts.length === 0 &&
    state.fences.length === 0 &&
    state.ends.size === 0 &&
    state.endNones.length === 0
  );
}

function refuseEnded(state: SessionState): void {
  if (isOpen(state) && state.fences.length === 0) return;
  const { sessionId } = state;
  const reason =
    state.fences.length > 0
      ? "was silent for so long that it was taken for dead"
      : state.starts.length === 0
        ? "is not there any more"
        : "has ended";
  throw new Failure("session.ended", {
    message: `session ${sessionId} of the repository ${reason}: nothing was committed`,
    sessionId,
  });
}

function refuseInvalid(sessionId: string): void {
  if (isSessionId(sessionId)) return;
  throw new Failure("input.invalid", {
    message: `${JSON.stringify(sessionId.slice(0, 80))} is not a session's id`,
  });
}
