import { Failure, isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { readKnownDamage } from "../pack/damage.ts";
import type { Repository } from "../repository.ts";
import type { CondemnedList } from "../session/condemned.ts";
import {
  isCommitted,
  isOpen,
  isUnexplained,
  type SessionStates,
  sessionOfRoot,
} from "../session/session-state.ts";
import type { UnexplainedRoot } from "./collect-report.ts";
import { readStartOf } from "./collector-session.ts";
import { inParallel } from "./in-parallel.ts";
import { type Inventory, listRoots, takeInventory, unreliable } from "./inventory.ts";
import { judgeRoots, type KnownRoot, type RootsJudged, readRoots } from "./known-root.ts";
import { asDamage, createMarker, findMissingPacks, type Marker } from "./mark.ts";
import { type CollectionPlan, packIdOf, planCollection } from "./plan-collection.ts";
import { condemnedMax, probeAgeMsMin, readsInFlight, unexplainedRootMs } from "./safety.ts";
import type { SilenceWatch } from "./silence.ts";
import { parseStoredName } from "./stored-name.ts";
import { readVerified } from "./verified.ts";

/** Steps 1 and 3: what there is, what points need of it, and what is garbage. Nothing is written. */
export type Survey = {
  readonly inventory: Inventory;
  readonly lists: ReadonlyMap<string, CondemnedList>;
  readonly judged: RootsJudged;
  readonly known: ReadonlyMap<string, KnownRoot | Error>;
  readonly marker: Marker;
  readonly plan: CollectionPlan;
  readonly missingPacks: readonly string[];
  readonly unexplained: readonly UnexplainedRoot[];
  /** Judges the roots afresh and marks what is new, for a last look before anything goes. */
  readonly lookAgain: (options: CallOptions) => Promise<Again>;
  /** Marks what these need, too. What does not open needs nothing: it was given up. */
  readonly keep: (rootKeys: readonly string[], options: CallOptions) => Promise<void>;
};

export type Again = {
  readonly sessions: SessionStates;
  readonly judged: RootsJudged;
  readonly roots: ReadonlyMap<string, number>;
};

export async function surveyRepository(
  o: {
    readonly repository: Repository;
    readonly expire: readonly string[];
    readonly watch: SilenceWatch;
    readonly alive: () => Promise<void>;
    readonly onListed: (objects: number) => void;
    readonly onMarked: (disks: number) => void;
  },
  options: CallOptions,
): Promise<Survey> {
  const { repository, watch } = o;
  const inventory = await takeInventory(
    repository,
    async (count) => {
      o.onListed(count);
      await o.alive();
    },
    options,
  );
  const { sessions } = inventory;
  watch.see(sessions);
  const lists = await repository.sessions.condemned.list(options);
  for (const [name, list] of lists) checkList(name, list);
  await refuseMissingRoots(repository, inventory, options);
  const condemnedRoots = new Set([...lists.values()].flatMap(({ roots }) => roots));
  const expiring = new Set([...o.expire, ...condemnedRoots]);
  const pinned = await pinsOf(repository, sessions, options);
  // Who pins what was condemned before is waited for, or has been refused.
  for (const rootKey of condemnedRoots) pinned.delete(rootKey);
  const known = new Map(await readJudgeable(repository, inventory.roots, sessions, options));
  watch.seeRoots([...inventory.roots.keys()].filter((rootKey) => isUnexplained(rootKey, sessions)));
  const hasLapsed = (rootKey: string): boolean => watch.rootSeenMs(rootKey) >= unexplainedRootMs;
  const judged = judgeRoots({
    rootKeys: inventory.roots.keys(),
    before: inventory.rootsBefore,
    sessions,
    known,
    expiring,
    pinned,
    hasLapsed,
  });
  const onRead = async ({ recordsRead }: { readonly recordsRead: number }): Promise<void> => {
    o.onMarked(recordsRead);
    await o.alive();
  };
  const marker = createMarker({ repository, inventory, onRead });
  await marker.mark(readable(known, judged.kept), options);
  // Before what is no point is marked, too: of that, packs may be missing.
  const missingPacks = await findMissingPacks(repository, inventory, options);
  await markUnexplained(marker, known, judged, options);
  const plan = planCollection({
    inventory,
    judged,
    marker,
    replacedNotes: await replacedNotes(repository, inventory, options),
    oldProbes: oldProbes(inventory, repository, watch),
    isCondemned: condemnedNames(lists),
    objectsMax: condemnedMax,
  });
  await checkUnknownSessions(repository, inventory, plan, options);
  return {
    inventory,
    lists,
    judged,
    known,
    marker,
    plan,
    missingPacks,
    unexplained: judged.unexplained.map((rootKey) =>
      describeUnexplained(rootKey, known.get(rootKey), watch),
    ),
    lookAgain: async (its) => {
      // The order of the inventory: what had ended when the sessions were listed has its roots among those listed after.
      const now = await repository.sessions.list(its);
      watch.see(now);
      const roots = await listRoots(repository, its);
      const news = new Map([...roots].filter(([rootKey]) => !known.has(rootKey)));
      for (const [key, root] of await readJudgeable(repository, news, now, its)) {
        known.set(key, root);
      }
      const again = judgeRoots({
        rootKeys: roots.keys(),
        before: inventory.rootsBefore,
        sessions: now,
        known,
        expiring,
        pinned: new Set(judged.held),
        hasLapsed,
      });
      await marker.mark(readable(known, again.kept), its);
      await markUnexplained(marker, known, again, its);
      return { sessions: now, judged: again, roots };
    },
    keep: async (rootKeys, its) => {
      const roots = rootKeys.map((key) => known.get(key));
      await marker.mark(
        roots.flatMap((root) => (root === undefined || root instanceof Error ? [] : [root])),
        its,
      );
    },
  };
}

/** Rule 10: a list with names that no collection removes was not made by one. */
function checkList(listName: string, list: CondemnedList): void {
  const wrong =
    list.roots.find((name) => parseStoredName(name).kind !== "root") ??
    list.objects.find((name) => !listedKinds.has(parseStoredName(name).kind));
  if (wrong === undefined) return;
  throw new Failure("unsupported", {
    message: `${listName} condemns ${JSON.stringify(wrong)}, which this release never removes: was it made by a newer one?`,
    key: listName,
  });
}

const listedKinds: ReadonlySet<string> = new Set(["disk", "metadata", "relocation"]);

/** R28: a root that an end names and the listing lacks was removed, or the listing is of another time. */
async function refuseMissingRoots(
  repository: Repository,
  { roots, sessions }: Inventory,
  options: CallOptions,
): Promise<void> {
  const listed = new Set(Array.from(roots.keys(), (key) => key.slice(-32)));
  const ends: string[] = [];
  for (const { sessionId, ends: its } of sessions.values()) {
    for (const [rootEnd, [name]] of its) {
      if (name !== undefined && !listed.has(`${sessionId}${rootEnd}`)) ends.push(name);
    }
  }
  await inParallel(ends, { inFlightMax: readsInFlight }, async (name) => {
    try {
      const { rootKey } = await repository.sessions.readEnd(name, options);
      if ((await repository.store.head(rootKey, options)) !== undefined) {
        throw unreliable(repository.store.url, rootKey);
      }
    } catch (error) {
      const isGone = isFailure(error, "object.not-found") || isFailure(error, "object.corrupt");
      if (!isGone) throw error;
    }
  });
}

/** What sessions that are open build on or read. One whose start does not open is waited for all the same. */
async function pinsOf(
  repository: Repository,
  sessions: SessionStates,
  options: CallOptions,
): Promise<Set<string>> {
  const pinned = new Set<string>();
  const open = [...sessions.values()].filter(isOpen);
  await inParallel(open, { inFlightMax: readsInFlight }, async (state) => {
    const start = await readStartOf(repository, state, options);
    for (const rootKey of start?.pins ?? []) pinned.add(rootKey);
  });
  return pinned;
}

/** What does not open, but may by another key, needs what nobody knows: it is kept itself, and named. */
async function markUnexplained(
  marker: Marker,
  known: ReadonlyMap<string, KnownRoot | Error>,
  { unexplained }: RootsJudged,
  options: CallOptions,
): Promise<void> {
  const roots = unexplained.flatMap((rootKey) => {
    const root = known.get(rootKey);
    return root === undefined || root instanceof Error ? [] : [root];
  });
  await marker.mark(roots, { ...options, alsoIncomplete: true });
}

function describeUnexplained(
  rootKey: string,
  root: KnownRoot | Error | undefined,
  watch: SilenceWatch,
): UnexplainedRoot {
  const keptForSeconds = Math.ceil((unexplainedRootMs - watch.rootSeenMs(rootKey)) / 1000);
  const unnamed = { vmName: "", pointId: "", takenAt: "" };
  const { vmName, pointId, takenAt } = root === undefined || root instanceof Error ? unnamed : root;
  return { rootKey, vmName, pointId, takenAt, keptForSeconds };
}

/** Points, attempts of sessions that have one, and those that nothing explains. */
async function readJudgeable(
  repository: Repository,
  roots: ReadonlyMap<string, number>,
  sessions: SessionStates,
  options: CallOptions,
): Promise<ReadonlyMap<string, KnownRoot | Error>> {
  const rootKeys = [...roots.keys()].filter((rootKey) => {
    const state = sessions.get(sessionOfRoot(rootKey)?.sessionId ?? "");
    const hasPoint = state !== undefined && state.ends.size > 0 && state.endNones.length === 0;
    return isCommitted(rootKey, sessions) || hasPoint;
  });
  const known = await readRoots(repository, rootKeys, options);
  const unexplained = [...roots.keys()].filter((rootKey) => isUnexplained(rootKey, sessions));
  const those = await readRoots(repository, unexplained, { ...options, alsoOtherEpochs: true });
  return new Map([...known, ...those]);
}

/** Fails with `collect.damaged` for the first that could not be read. */
function* readable(
  known: ReadonlyMap<string, KnownRoot | Error>,
  rootKeys: readonly string[],
): Generator<KnownRoot> {
  for (const rootKey of rootKeys) {
    const root = known.get(rootKey);
    if (root instanceof Error) throw asDamage(root, rootKey);
    if (root !== undefined) yield root;
  }
}

async function replacedNotes(
  repository: Repository,
  { notes }: Inventory,
  options: CallOptions,
): Promise<readonly string[]> {
  if (notes.size === 0) return [];
  const damage = await readKnownDamage(repository, options);
  const verified = await readVerified(repository, () => undefined, options);
  return [...damage.replaced, ...verified.replaced].filter((name) => notes.has(name));
}

/** A probe takes a minute; what an earlier collection saw there long ago is nobody's any more. */
function oldProbes(
  { probes }: Inventory,
  { clock }: Repository,
  watch: SilenceWatch,
): readonly string[] {
  const folders = new Set(probes.map(({ key }) => key.slice(0, key.indexOf("/", 6) + 1)));
  watch.seeProbes(folders);
  return [...folders].filter(
    (folder) => clock.now() - (watch.probesSeen.get(folder) ?? clock.now()) >= probeAgeMsMin,
  );
}

function condemnedNames(lists: ReadonlyMap<string, CondemnedList>): (name: string) => boolean {
  const packs = new Set<string>();
  const names = new Set<string>();
  for (const list of lists.values()) {
    for (const packId of list.packs) packs.add(packId);
    for (const name of [...list.roots, ...list.objects]) names.add(name);
  }
  return (name) =>
    names.has(name) || (name.startsWith("packs/") && packs.has(name.slice("packs/00/".length)));
}

/** R28 again: a session whose start and end the listing lacks seems to have ended; each of these is looked at by itself. */
async function checkUnknownSessions(
  repository: Repository,
  { sessions }: Inventory,
  plan: CollectionPlan,
  options: CallOptions,
): Promise<void> {
  const unknown = new Set<string>();
  const look = (sessionId: string): void => {
    const state = sessions.get(sessionId);
    const hasEnded = state !== undefined && (state.ends.size > 0 || state.endNones.length > 0);
    if (!hasEnded) unknown.add(sessionId);
  };
  for (const planned of plan.packs) look(packIdOf(planned).slice(0, 16));
  for (const { name } of [...plan.roots, ...plan.objects, ...plan.unshared]) {
    const parsed = parseStoredName(name);
    if ("sessionId" in parsed) look(parsed.sessionId);
  }
  if (unknown.size === 0) return;
  const states = await repository.sessions.list({ ...options, sessionIds: [...unknown] });
  for (const state of states.values()) {
    if (unknown.has(state.sessionId) && isOpen(state)) {
      throw unreliable(repository.store.url, state.starts[0] ?? state.sessionId);
    }
  }
}
