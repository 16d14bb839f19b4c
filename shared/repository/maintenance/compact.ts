import { Failure, isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { toHex } from "../format/bytes.ts";
import type { Repository } from "../repository.ts";
import { isCommitted, isOpen, type SessionState, sessionOfRoot } from "../session/session-state.ts";
import { type BrakeSettings, checkBrake } from "./brake.ts";
import { choosePacks } from "./choose-packs.ts";
import type { OpenSession } from "./collect-report.ts";
import {
  beginCollector,
  type CollectorSession,
  endQuietly,
  readStartOf,
} from "./collector-session.ts";
import type { CompactReport } from "./compact-report.ts";
import { type ListInWork, openWhenCondemned } from "./condemn.ts";
import {
  brakeOf,
  type Done,
  describeCompaction,
  type Planned,
  weighCompaction,
} from "./describe-compaction.ts";
import { inParallel } from "./in-parallel.ts";
import { type KnownRoot, readRoots } from "./known-root.ts";
import { asDamage } from "./mark.ts";
import { movePacks, nothingMoved } from "./move-packs.ts";
import { findNeededRecords, readRelocationEdges } from "./needed-records.ts";
import { flags } from "./object-table.ts";
import {
  dropFromIndex,
  nothingRemoved,
  type Removed,
  type Remover,
  removeNames,
  replaceLists,
} from "./remove-condemned.ts";
import { compactBatch, halfEmptyShare, readsInFlight } from "./safety.ts";
import { type SilenceWatch, watchSilence } from "./silence.ts";
import { storedName } from "./stored-name.ts";
import { type Survey, surveyRepository } from "./survey.ts";
import { describeSessions, waitForSessions } from "./wait-for-sessions.ts";

/**
 * Compaction, beside everything else and without a lock (docs/decisions/0005): what is needed of packs that are mostly garbage, or sealed under an
 * old key epoch, moves to new packs, relocations say where to, the old packs go; points stay as they were written. What always holds: a pack goes
 * only when all that any point needs of it has another place in the store, which a second mark has looked up after everybody who could have begun
 * to use more of it has ended; and only after this session was seen to be unfenced with the relocations in place. Whoever dies in the middle is
 * continued by the next run.
 */
export type CompactOptions = BrakeSettings & {
  readonly repository: Repository;
  /** Packs of which less than this share is needed; above 0, up to 1. Default: one half. */
  readonly share?: number | undefined;
  /** Also packs that are sealed under key epochs before the active one. */
  readonly reseal?: boolean;
  /** Stored bytes of the packs that one run takes. */
  readonly limitBytes?: number | undefined;
  /** Nothing is written or removed. */
  readonly isDryRun?: boolean;
  /** How long to wait for open sessions. */
  readonly waitMs?: number;
  /** Who compacts, for people. */
  readonly holder: string;
  /** Whose clock it is. */
  readonly observer: string;
  readonly onProgress?: (progress: CompactProgress) => void;
  readonly logger: Logger;
  readonly signal?: AbortSignal;
};

export type CompactProgress = {
  readonly stage: "listing" | "marking" | "choosing" | "waiting" | "moving" | "removing";
  readonly done: number;
  readonly total?: number;
};

export async function compact(o: CompactOptions): Promise<CompactReport> {
  const { repository, logger, holder } = o;
  checkShare(o.share);
  const options = o.signal === undefined ? {} : { signal: o.signal };
  const startedMs = repository.clock.now();
  const watch = await watchSilence(repository, o.observer, options);
  const seconds = (): number => (repository.clock.now() - startedMs) / 1000;
  if (o.isDryRun === true) {
    const alive = async (): Promise<void> => o.signal?.throwIfAborted();
    const planned = await plan(o, { alive, watch, options });
    return {
      ...describeCompaction(planned),
      ...brakeOf(o, planned),
      isDryRun: true,
      seconds: seconds(),
    };
  }
  const collector = await beginCollector({
    repository,
    watch,
    holder,
    waitMs: o.waitMs ?? 0,
    logger,
    options,
  });
  try {
    if (collector.sessionId === undefined) {
      throw new Failure("storage.no-space", {
        message: `${repository.store.url} has no space: compaction writes before it removes; garbage collection needs none`,
      });
    }
    return { ...(await run(o, { collector, watch, options })), seconds: seconds() };
  } finally {
    await endQuietly(collector, watch, logger);
  }
}

type Context = {
  readonly collector: CollectorSession;
  readonly watch: SilenceWatch;
  readonly options: CallOptions;
};

type Planning = Omit<Context, "collector"> & { readonly alive: () => Promise<void> };

async function plan(o: CompactOptions, context: Planning): Promise<Planned> {
  const { survey, roots, edges } = await look(o, context);
  o.onProgress?.({ stage: "choosing", done: 0 });
  const choice = await choosePacks(
    {
      repository: o.repository,
      survey,
      roots,
      mayLack: mayLackRecords(survey),
      edges,
      share: o.share ?? halfEmptyShare,
      reseal: o.reseal ?? false,
      limitBytes: o.limitBytes ?? Number.POSITIVE_INFINITY,
      alive: context.alive,
    },
    context.options,
  );
  const { sessions } = survey.inventory;
  const points = roots.filter(({ rootKey }) => isCommitted(rootKey, sessions)).length;
  return { survey, points, choice };
}

/** A mark: what there is, and the roots of which it must be known what they need. */
async function look(o: CompactOptions, { alive, watch, options }: Planning) {
  const { repository } = o;
  const survey = await surveyRepository(
    {
      repository,
      expire: [],
      watch,
      alive,
      onListed: (done) => o.onProgress?.({ stage: "listing", done }),
      onMarked: (done) => o.onProgress?.({ stage: "marking", done }),
    },
    options,
  );
  const roots = await readAllRoots(repository, survey, options);
  const edges = await readRelocationEdges(
    { repository, alive },
    survey.inventory.relocations.keys(),
    options,
  );
  return { survey, roots, edges };
}

/**
 * Every root that is a point, is to go, or may become one: its session may have taken over leaves that need what is moved. Fails with
 * `collect.damaged` for one that cannot be read.
 */
async function readAllRoots(
  repository: Repository,
  { inventory }: Survey,
  options: CallOptions,
): Promise<readonly KnownRoot[]> {
  const { sessions } = inventory;
  const stateOf = (rootKey: string): SessionState | undefined =>
    sessions.get(sessionOfRoot(rootKey)?.sessionId ?? "");
  const mayCount = [...inventory.roots.keys()].filter(
    (rootKey) => (stateOf(rootKey)?.endNones.length ?? 0) === 0,
  );
  const roots: KnownRoot[] = [];
  for (const [rootKey, root] of await readRoots(repository, mayCount, options)) {
    if (!(root instanceof Error)) {
      roots.push(root);
      continue;
    }
    const isGone =
      isFailure(root, "object.not-found") &&
      (await repository.store.head(rootKey, options)) === undefined;
    if (!isGone) throw asDamage(root, rootKey);
  }
  return roots;
}

async function run(o: CompactOptions, context: Context): Promise<Omit<CompactReport, "seconds">> {
  const { repository, logger } = o;
  const { collector, watch, options } = context;
  const { alive } = collector;
  const planned = await plan(o, { ...context, alive });
  checkBrake(weighCompaction(planned), o);
  const lists = await listsInWork(o, context, planned);
  const waiter = { repository, collector, watch, logger };
  const onWait = (done: number): void => o.onProgress?.({ stage: "waiting", done });
  const waited = await waitForSessions(
    { ...waiter, lists, waitMs: o.waitMs ?? 0, onWait },
    options,
  );
  const finished = waited.lists.filter(({ waitingFor }) => waitingFor.length === 0);
  const ids = waited.lists.flatMap(({ waitingFor }) => waitingFor);
  const sessions = await repository.sessions.list({ ...options, sessionIds: ids });
  const waitingFor = await describeSessions(waiter, sessions, ids, options);
  const done = { moved: nothingMoved(), removed: nothingRemoved() };
  const strangers = finished.length === 0 ? [] : await compactLists(o, context, finished, done);
  return describeCompaction(planned, {
    ...done,
    fenced: waited.fenced,
    waitingFor: [...waitingFor, ...strangers],
    isWaiting: ids.length > 0 || strangers.length > 0,
  });
}

/** Lists of earlier runs, and one for what was chosen now. */
async function listsInWork(
  o: CompactOptions,
  { collector, options }: Context,
  { survey, choice }: Planned,
): Promise<readonly ListInWork[]> {
  const { repository } = o;
  const own = collector.sessionId;
  const found: ListInWork[] = [];
  const openNow = await repository.sessions.list(options);
  for (const [name, list] of survey.lists) {
    if (list.compacting.length === 0) continue;
    found.push(await openWhenCondemned(repository, { name, list }, openNow, { own, options }));
  }
  if (choice.chosen.length === 0) return found;
  await collector.alive();
  const list = {
    madeAt: Math.max(0, repository.clock.now()),
    packs: [],
    compacting: choice.chosen.map(({ packId }) => packId),
    roots: [],
    objects: [],
  };
  const name = await repository.sessions.condemned.put(list, options);
  // After the list is there, and not before.
  const sessions = await repository.sessions.list(options);
  found.push(await openWhenCondemned(repository, { name, list }, sessions, { own, options }));
  return found;
}

/** Second mark, moves, removals. Returns open sessions of which it is not known what they build on: nothing is moved while there are such. */
async function compactLists(
  o: CompactOptions,
  context: Context,
  lists: readonly ListInWork[],
  { moved, removed }: Done,
): Promise<readonly OpenSession[]> {
  const { repository, logger } = o;
  const { collector, options } = context;
  const { survey, roots, edges } = await look(o, { ...context, alive: collector.alive });
  const strangers = await unreadableSessions(o, context, survey);
  if (strangers.length > 0) return strangers;
  const there = lists.filter(({ name }) => survey.lists.has(name));
  const { pack } = survey.inventory.tables;
  const rowOf = (packId: string): number => pack.find(Buffer.from(packId, "hex"));
  const isThere = (packId: string): boolean => {
    const row = rowOf(packId);
    return row >= 0 && pack.has(row, flags.listed);
  };
  const listed = new Set(there.flatMap(({ list }) => list.compacting));
  const going = new Set([...listed].filter(isThere));
  const isGoing = (packId: string): boolean => going.has(packId);
  const gone = await findGone(repository, listed.difference(going), options);
  const all = [...going].sort();
  const onRemoved = (done: number): void => o.onProgress?.({ stage: "removing", done });
  const remover: Remover = { repository, collector, logger, options, onRemoved };
  for (let at = 0; at < all.length; at += compactBatch) {
    const packIds = all.slice(at, at + compactBatch);
    const { alive } = collector;
    const mayLack = mayLackRecords(survey);
    const scan = { repository, alive, roots, mayLack, edges, packIds };
    const needed = await findNeededRecords(scan, options);
    packIds.sort((left, right) => compare(needed, left, right));
    const from = moved.emptied.length;
    const onMoved = (done: number): void =>
      o.onProgress?.({ stage: "moving", done: at + done, total: all.length });
    await movePacks(
      { repository, collector, needed, edges, isGoing, onMoved },
      packIds,
      moved,
      options,
    );
    const emptied = moved.emptied.slice(from).map((packId) => ({
      packId,
      name: storedName("pack", Buffer.from(packId, "hex")),
      sizeBytes: pack.sizeBytes(rowOf(packId)),
    }));
    const left = await removeEmptied(remover, emptied, removed);
    for (const { packId, name } of emptied) if (!left.has(name)) gone.add(packId);
  }
  await replaceLists(remover, there, (list) => ({
    ...list,
    compacting: list.compacting.filter((packId) => !gone.has(packId)),
  }));
  return [];
}

/** A pack that a listing lacks may be there all the same; what was condemned stays so until it is gone. */
async function findGone(
  { store }: Repository,
  packIds: ReadonlySet<string>,
  options: CallOptions,
): Promise<Set<string>> {
  const gone = new Set<string>();
  await inParallel(packIds, { inFlightMax: readsInFlight }, async (packId) => {
    const name = storedName("pack", Buffer.from(packId, "hex"));
    if ((await store.head(name, options)) === undefined) gone.add(packId);
  });
  return gone;
}

function compare(
  {
    order,
    diskOf,
  }: { readonly order: (id: string) => number; readonly diskOf: (id: string) => string },
  left: string,
  right: string,
): number {
  const [its, other] = [diskOf(left), diskOf(right)];
  if (its !== other) return its < other ? -1 : 1;
  return order(left) - order(right);
}

/** Of a root whose session was cleared away, what no other session could refer to went with it: it is no point, unless somebody removed the session. */
function mayLackRecords({ inventory }: Survey): (rootKey: string) => boolean {
  return (rootKey) =>
    (inventory.sessions.get(sessionOfRoot(rootKey)?.sessionId ?? "")?.starts.length ?? 0) === 0;
}

type Emptied = { readonly packId: string; readonly name: string; readonly sizeBytes: number };

/** Returns the names of those that are still there. */
async function removeEmptied(
  o: Remover,
  emptied: readonly Emptied[],
  removed: Removed,
): Promise<ReadonlySet<string>> {
  if (emptied.length === 0) return new Set();
  // With the relocations in place: whoever fences this session later sees them, and keeps what they lead to.
  await o.collector.confirm();
  const ids = new Set(emptied.map(({ packId }) => packId));
  const isIndexFree = await dropFromIndex(o, removed, (packId) => ids.has(toHex(packId)));
  if (!isIndexFree) return new Set(emptied.map(({ name }) => name));
  return await removeNames(o, removed, emptied);
}

/** What they build on is not known, so it may be pruned while they use it. */
async function unreadableSessions(
  { repository }: CompactOptions,
  { collector, watch, options }: Context,
  { inventory }: Survey,
): Promise<readonly OpenSession[]> {
  const ids: string[] = [];
  for (const state of inventory.sessions.values()) {
    if (!isOpen(state) || state.sessionId === collector.sessionId) continue;
    if ((await readStartOf(repository, state, options)) === undefined) ids.push(state.sessionId);
  }
  return await describeSessions({ repository, watch }, inventory.sessions, ids, options);
}

function checkShare(share: number | undefined): void {
  if (share === undefined || (share > 0 && share <= 1)) return;
  throw new Failure("input.invalid", {
    message: `a share of ${share} needed bytes is not above 0 and up to 1`,
  });
}
