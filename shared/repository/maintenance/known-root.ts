import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { decodeRoot } from "../recovery-point/point.ts";
import type { Repository } from "../repository.ts";
import {
  isCommitted,
  isOpen,
  isUnexplained,
  type SessionStates,
  sessionOfRoot,
} from "../session/session-state.ts";
import { inParallel } from "./in-parallel.ts";
import { readsInFlight } from "./safety.ts";

/** What collection needs of a root. */
export type KnownRoot = {
  readonly rootKey: string;
  readonly pointId: string;
  readonly vmKey: string;
  readonly vmName: string;
  readonly takenAt: string;
  readonly fence: number;
  readonly recordKeys: readonly string[];
  readonly metadataKey: string;
};

/** What is to become of the roots that are listed. */
export type RootsJudged = {
  /** Points, and attempts that may yet become one: what they need stays. */
  readonly kept: readonly string[];
  /** Points that go. */
  readonly expired: readonly string[];
  /** Points that were to go, but a session that is open builds on them or reads them. */
  readonly held: readonly string[];
  /** Not points: attempts of sessions that have ended, or of points of which a later attempt counts. */
  readonly superseded: readonly string[];
  /** Not points, and nothing is left that says why: what they need stays for `unexplainedRootMs`. */
  readonly unexplained: readonly string[];
};

/** Roots that cannot be read come back as the failure that says why. Fails with `repository.epoch-unknown`, unless `alsoOtherEpochs`. */
export async function readRoots(
  repository: Repository,
  rootKeys: Iterable<string>,
  { alsoOtherEpochs = false, ...options }: CallOptions & { readonly alsoOtherEpochs?: boolean },
): Promise<ReadonlyMap<string, KnownRoot | Error>> {
  const known = new Map<string, KnownRoot | Error>();
  await inParallel(rootKeys, { inFlightMax: readsInFlight }, async (rootKey) => {
    try {
      const bytes = await repository.objects.get(rootKey, "recovery-point", options);
      const { pointId, vmKey, vmName, takenAt, fence, disks, metadataKey } = decodeRoot(
        bytes,
        rootKey,
      );
      const recordKeys = disks.map(({ recordKey }) => recordKey);
      known.set(rootKey, {
        rootKey,
        pointId,
        vmKey,
        vmName,
        takenAt,
        fence,
        recordKeys,
        metadataKey,
      });
    } catch (error) {
      const isDamage = isFailure(error, "object.corrupt") || isFailure(error, "object.not-found");
      const isOther = alsoOtherEpochs && isFailure(error, "repository.epoch-unknown");
      if (!isDamage && !isOther) throw error;
      known.set(rootKey, error);
    }
  });
  return known;
}

/**
 * Decides by names and states alone, plus the readable roots' fields for attempts at one point. `known` must have every root that is
 * committed or unexplained. A root that is not listed any more is nobody's concern.
 */
export function judgeRoots(o: {
  readonly rootKeys: Iterable<string>;
  /** Roots that were there before the sessions were listed. */
  readonly before: ReadonlySet<string>;
  readonly sessions: SessionStates;
  readonly known: ReadonlyMap<string, KnownRoot | Error>;
  readonly expiring: ReadonlySet<string>;
  readonly pinned: ReadonlySet<string>;
  /** Unexplained roots that were seen for long enough. */
  readonly hasLapsed: (rootKey: string) => boolean;
}): RootsJudged {
  const { sessions, known } = o;
  const expiring = withEarlierAttempts(o.expiring, known);
  const committed = new Map([...known].filter(([rootKey]) => isCommitted(rootKey, sessions)));
  const fences = highestFences(committed);
  const counting = countingRoots(committed, fences);
  const kept: string[] = [];
  const expired: string[] = [];
  const held: string[] = [];
  const superseded: string[] = [];
  const unexplained: string[] = [];
  const undecided: string[] = [];
  const keptSessions = new Set<string>();
  for (const rootKey of o.rootKeys) {
    const sessionId = sessionOfRoot(rootKey)?.sessionId ?? "";
    if (!isCommitted(rootKey, sessions)) {
      undecided.push(rootKey);
      continue;
    }
    const isHeld = expiring.has(rootKey) && o.pinned.has(rootKey);
    if (isHeld) held.push(rootKey);
    else if (expiring.has(rootKey)) expired.push(rootKey);
    if (expiring.has(rootKey) && !isHeld) continue;
    if (!isHeld && !counting.has(rootKey)) {
      superseded.push(rootKey);
      continue;
    }
    kept.push(rootKey);
    keptSessions.add(sessionId);
  }
  for (const rootKey of undecided) {
    const sessionId = sessionOfRoot(rootKey)?.sessionId ?? "";
    // Of a session that is open nothing is garbage. Of one whose point stays, another attempt may still be about to put its end.
    if (isOpen(sessions.get(sessionId))) continue;
    if (keptSessions.has(sessionId)) {
      if (isReadable(known.get(rootKey))) kept.push(rootKey);
      continue;
    }
    if (!o.before.has(rootKey)) continue;
    const mayBeKept =
      isUnexplained(rootKey, sessions) && !expiring.has(rootKey) && !o.hasLapsed(rootKey);
    const isKept = mayBeKept && mayBeWanted(known.get(rootKey), fences);
    (isKept ? unexplained : superseded).push(rootKey);
  }
  return { kept, expired, held, superseded, unexplained };
}

/** It is authentic, or may be by another key, and its point has no attempt that counts instead. */
function mayBeWanted(
  root: KnownRoot | Error | undefined,
  fences: ReadonlyMap<string, number>,
): boolean {
  if (root === undefined) return false;
  if (root instanceof Error) return isFailure(root, "repository.epoch-unknown");
  return root.fence > (fences.get(pointOf(root)) ?? -1);
}

/** All of a point's attempts up to the one that expires; otherwise an earlier one would be the point again. */
function withEarlierAttempts(
  expiring: ReadonlySet<string>,
  known: ReadonlyMap<string, KnownRoot | Error>,
): ReadonlySet<string> {
  const fences = new Map<string, number>();
  for (const rootKey of expiring) {
    const root = known.get(rootKey);
    if (root === undefined || root instanceof Error) continue;
    const point = pointOf(root);
    fences.set(point, Math.max(root.fence, fences.get(point) ?? root.fence));
  }
  const all = new Set(expiring);
  for (const [rootKey, root] of known) {
    if (root instanceof Error) continue;
    if (root.fence <= (fences.get(pointOf(root)) ?? -1)) all.add(rootKey);
  }
  return all;
}

/**
 * The attempts of each point that have its highest fence: readers take one of these. Where there are several, the catalog may have noted any
 * of them, so all stay. What cannot be read counts.
 */
function countingRoots(
  known: ReadonlyMap<string, KnownRoot | Error>,
  fences: ReadonlyMap<string, number>,
): ReadonlySet<string> {
  const counting = new Set<string>();
  for (const [rootKey, root] of known) {
    if (root instanceof Error || root.fence === fences.get(pointOf(root))) counting.add(rootKey);
  }
  return counting;
}

function highestFences(known: ReadonlyMap<string, KnownRoot | Error>): ReadonlyMap<string, number> {
  const fences = new Map<string, number>();
  for (const root of known.values()) {
    if (root instanceof Error) continue;
    const point = pointOf(root);
    fences.set(point, Math.max(root.fence, fences.get(point) ?? root.fence));
  }
  return fences;
}

function isReadable(root: KnownRoot | Error | undefined): boolean {
  return root !== undefined && !(root instanceof Error);
}

function pointOf({ vmKey, pointId }: KnownRoot): string {
  return `${vmKey}/${pointId}`;
}
