import type { SignedNames } from "./signed-name.ts";

/** What the names under `sessions/<id>/` say; planted ones are not among them. */
export type SessionState = {
  readonly sessionId: string;
  readonly starts: readonly string[];
  readonly renewals: readonly string[];
  readonly fences: readonly string[];
  /** By the last 16 characters of the root's name. */
  readonly ends: ReadonlyMap<string, readonly string[]>;
  readonly endNones: readonly string[];
};

export type SessionStates = ReadonlyMap<string, SessionState>;

export const sessionsFolder = "sessions/";
const sessionId = /^[0-9a-f]{16}$/;
const endStem = /^end-([0-9a-f]{16})-$/;
const rootEnd = /-([0-9a-f]{16})([0-9a-f]{16})$/;

export function isSessionId(text: string): boolean {
  return sessionId.test(text);
}

/** Who writes in it is not known to have stopped: it has begun and not ended. A fenced one is open until its end is put. */
export function isOpen(state: SessionState | undefined): boolean {
  return (
    state !== undefined &&
    state.starts.length > 0 &&
    state.ends.size === 0 &&
    state.endNones.length === 0
  );
}

/** The session and the rest of a root's name; undefined for a name that is none. */
export function sessionOfRoot(
  rootKey: string,
): { readonly sessionId: string; readonly rootEnd: string } | undefined {
  const [, its, end] = rootEnd.exec(rootKey) ?? [];
  return its === undefined || end === undefined ? undefined : { sessionId: its, rootEnd: end };
}

/** The session that made an object with a random name, or a pack, says so by the name's first 8 bytes. */
export function sessionOfId(idHex: string): string {
  return idHex.slice(0, 16);
}

/** A root is a point if and only if its session has a start, an end that names the root, and no `end-none`. */
export function isCommitted(rootKey: string, sessions: SessionStates): boolean {
  const its = sessionOfRoot(rootKey);
  const state = its && sessions.get(its.sessionId);
  return (
    its !== undefined &&
    state !== undefined &&
    state.starts.length > 0 &&
    state.endNones.length === 0 &&
    state.ends.has(its.rootEnd)
  );
}

/**
 * Nothing is left that says why it is no point: no start, and no word that it has none. Whoever clears a session away removes its roots before its
 * start, so either somebody else removed objects of the session, or its writer woke up long after that and put the root.
 */
export function isUnexplained(rootKey: string, sessions: SessionStates): boolean {
  const state = sessions.get(sessionOfRoot(rootKey)?.sessionId ?? "");
  return state === undefined || (state.starts.length === 0 && state.endNones.length === 0);
}

type Building = {
  readonly sessionId: string;
  readonly starts: string[];
  readonly renewals: string[];
  readonly fences: string[];
  readonly ends: Map<string, string[]>;
  readonly endNones: string[];
};

export function emptyState(id: string): Building {
  return {
    sessionId: id,
    starts: [],
    renewals: [],
    fences: [],
    ends: new Map(),
    endNones: [],
  };
}

/** False when the name was planted, or is of a later release. */
export function addName(
  states: Map<string, Building>,
  name: string,
  names: Pick<SignedNames, "stemOf">,
): boolean {
  const [, id = "", stem = ""] = names.stemOf(name)?.split("/") ?? [];
  if (!isSessionId(id)) return false;
  const state = states.get(id) ?? emptyState(id);
  const [, root] = endStem.exec(stem) ?? [];
  if (stem === "start-") state.starts.push(name);
  else if (stem === "renew-") state.renewals.push(name);
  else if (stem === "fence-") state.fences.push(name);
  else if (stem === "end-none-") state.endNones.push(name);
  else if (root !== undefined) state.ends.set(root, [...(state.ends.get(root) ?? []), name]);
  else return false;
  states.set(id, state);
  return true;
}
