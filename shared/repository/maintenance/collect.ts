import { isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import { isOpen, sessionOfRoot } from "../session/session-state.ts";
import { type BrakeSettings, checkBrake } from "./brake.ts";
import type { CollectReport } from "./collect-report.ts";
import { beginCollector, type CollectorSession, endQuietly } from "./collector-session.ts";
import { condemn, type ListInWork, openWhenCondemned } from "./condemn.ts";
import { dropDamagedLists } from "./damaged-lists.ts";
import { describeRounds, type Round, weigh } from "./describe-rounds.ts";
import { listRoots } from "./inventory.ts";
import { mergeWhenDue } from "./merge-when-due.ts";
import { allOf } from "./plan-collection.ts";
import {
  isForCollection,
  nothingRemoved,
  type Removed,
  type Remover,
  removeCondemned,
  removeOrphanedNotes,
  removeUnshared,
  sizeOfList,
} from "./remove-condemned.ts";
import { roundsMax } from "./safety.ts";
import { type SilenceWatch, watchSilence } from "./silence.ts";
import { type Survey, surveyRepository } from "./survey.ts";
import { describeSessions, fenceSilent, waitForSessions } from "./wait-for-sessions.ts";

/**
 * Garbage collection, beside everything else and without a lock (docs/decisions/0005). What always holds: nothing is removed that a condemned list has
 * not named while every session that could use it was waited for, and that a second mark has not found needless; whoever dies in the middle is
 * continued by the next run; no clock decides but when a silent session is fenced.
 */
export type CollectOptions = BrakeSettings & {
  readonly repository: Repository;
  /** Roots of points that are to go; they need not be readable. Those that are gone already are ignored. */
  readonly expire?: readonly string[];
  /** Nothing is written or removed. */
  readonly isDryRun?: boolean;
  /**
   * Removes condemned lists that do not open. Only who knows that no other collector works or sleeps anywhere may say so: what such a list names
   * is free to be used again.
   */
  readonly dropDamagedLists?: boolean;
  /** How long to wait for open sessions, and for silent ones to be silent for long enough. */
  readonly waitMs?: number;
  /** Who collects, for people. */
  readonly holder: string;
  /** Whose clock it is. */
  readonly observer: string;
  readonly onProgress?: (progress: CollectProgress) => void;
  readonly logger: Logger;
  readonly signal?: AbortSignal;
};

export type CollectProgress = {
  readonly stage: "listing" | "marking" | "waiting" | "removing";
  readonly done: number;
  /** Undefined where it is not known. */
  readonly total?: number;
};

export async function collect(o: CollectOptions): Promise<CollectReport> {
  const { repository, logger, holder } = o;
  const options = o.signal === undefined ? {} : { signal: o.signal };
  const startedMs = repository.clock.now();
  const watch = await watchSilence(repository, o.observer, options);
  const seconds = (): number => (repository.clock.now() - startedMs) / 1000;
  if (o.isDryRun === true) return { ...(await dryRun(o, watch, options)), seconds: seconds() };
  const begin = { repository, watch, holder, waitMs: o.waitMs ?? 0, logger, options };
  const collector = await beginCollector(begin).catch(async (error: unknown) => {
    if (!isFailure(error, "object.corrupt") || o.dropDamagedLists !== true) throw error;
    await dropDamagedLists(repository, watch, logger, options);
    return await beginCollector(begin);
  });
  try {
    const rounds = await runRounds(o, { collector, watch, options });
    const merged = await mergeWhenDue({ repository, collector, logger }, options);
    const report = describeRounds(rounds);
    return { ...report, index: { ...report.index, merged }, seconds: seconds() };
  } finally {
    await endQuietly(collector, watch, logger);
  }
}

async function dryRun(
  o: CollectOptions,
  watch: SilenceWatch,
  options: CallOptions,
): Promise<Omit<CollectReport, "seconds">> {
  const alive = async (): Promise<void> => options.signal?.throwIfAborted();
  const survey = await surveyRepository(surveying(o, { alive }, watch), options);
  const { sessions } = survey.inventory;
  const lists: ListInWork[] = [];
  for (const [name, list] of survey.lists) {
    if (!isForCollection(list)) continue;
    const noted = await o.repository.sessions.condemned.waited(name, options);
    const waitingFor = (noted?.sessionIds ?? [...sessions.keys()]).filter((id) =>
      isOpen(sessions.get(id)),
    );
    lists.push({ name, list, waitedNames: [], waitingFor });
  }
  const hasNews = allOf(survey.plan).next().done !== true;
  const open = [...sessions.values()].filter(isOpen).map(({ sessionId }) => sessionId);
  const ids = hasNews ? open : lists.flatMap(({ waitingFor }) => waitingFor);
  const waitingFor = await describeSessions({ ...o, watch }, sessions, ids, options);
  const round = { survey, removed: undefined, fenced: [], waiting: lists, waitingFor, waitedMs: 0 };
  const report = { ...describeRounds([round]), isDryRun: true };
  try {
    checkBrake(weigh(survey), o);
    return report;
  } catch (error) {
    if (!isFailure(error, "collect.brake")) throw error;
    return { ...report, brake: error.message };
  }
}

type Context = {
  readonly collector: CollectorSession;
  readonly watch: SilenceWatch;
  readonly options: CallOptions;
};

async function runRounds(o: CollectOptions, context: Context): Promise<readonly Round[]> {
  const rounds: Round[] = [];
  let waitMs = o.waitMs ?? 0;
  for (;;) {
    const round = await runRound(o, context, waitMs);
    rounds.push(round);
    waitMs -= round.waitedMs;
    // What was fenced while this round waited has left its garbage to the next.
    const hasNews = round.fenced.length > 0 && round.waitedMs > 0;
    if (!hasNews || rounds.length >= roundsMax) return rounds;
  }
}

async function runRound(o: CollectOptions, context: Context, waitMs: number): Promise<Round> {
  const { repository, logger } = o;
  const { condemned } = repository.sessions;
  const { collector, watch, options } = context;
  const waiter = { repository, collector, watch, logger };
  const before = await repository.sessions.list(options);
  watch.see(before);
  const { fenced } = await fenceSilent(waiter, before, options);
  const survey = await surveyRepository(surveying(o, collector, watch), options);
  checkBrake(weigh(survey), o);
  const removed = nothingRemoved();
  const lists = await listsInWork(o, context, survey, removed);
  const onWait = (sessions: number): void => o.onProgress?.({ stage: "waiting", done: sessions });
  const waited = await waitForSessions({ ...waiter, lists, waitMs, onWait }, options);
  const finished = waited.lists.filter(({ waitingFor }) => waitingFor.length === 0);
  const waiting = waited.lists.filter(({ waitingFor }) => waitingFor.length > 0);
  await removeFinished(o, context, survey, finished, removed);
  await removeTheUnshared(o, context, survey, removed);
  await removeOrphanedNotes(removerOf(o, context, 0), await condemned.orphanedNotes(options));
  const ids = waiting.flatMap(({ waitingFor }) => waitingFor);
  const sessions = await repository.sessions.list({ ...options, sessionIds: ids });
  return {
    survey,
    removed,
    fenced: [...fenced, ...waited.fenced],
    waiting,
    waitingFor: await describeSessions(waiter, sessions, ids, options),
    waitedMs: waited.waitedMs,
  };
}

function surveying(
  o: CollectOptions,
  { alive }: Pick<CollectorSession, "alive">,
  watch: SilenceWatch,
) {
  return {
    repository: o.repository,
    expire: o.expire ?? [],
    watch,
    alive,
    onListed: (done: number) => o.onProgress?.({ stage: "listing", done }),
    onMarked: (done: number) => o.onProgress?.({ stage: "marking", done }),
  };
}

/** The lists of earlier runs, and one for what was found now. */
async function listsInWork(
  o: CollectOptions,
  context: Context,
  survey: Survey,
  removed: Removed,
): Promise<readonly ListInWork[]> {
  const { repository } = o;
  const { collector, options } = context;
  const { lists, plan, inventory } = survey;
  const own = collector.sessionId;
  const found: ListInWork[] = [];
  // Not those of the inventory: another collector may have put its list after these were listed.
  const openNow = lists.size === 0 ? inventory.sessions : await repository.sessions.list(options);
  for (const [name, list] of lists) {
    if (!isForCollection(list)) continue;
    found.push(await openWhenCondemned(repository, { name, list }, openNow, { own, options }));
  }
  if (plan.roots.length + plan.packs.length + plan.objects.length === 0) return found;
  await collector.alive();
  const listed = await condemn(repository, plan, options).catch(async (error: unknown) => {
    if (!isFailure(error, "storage.no-space")) throw error;
    o.logger.warn("no space for a condemned list: what needs none goes first");
    await removeTheUnshared(o, context, survey, removed);
    return await condemn(repository, plan, options);
  });
  // After the list is there, and not before.
  const sessions = await repository.sessions.list(options);
  return [...found, await openWhenCondemned(repository, listed, sessions, { own, options })];
}

/** Steps 3 and 4. */
async function removeFinished(
  o: CollectOptions,
  context: Context,
  survey: Survey,
  finished: readonly ListInWork[],
  removed: Removed,
): Promise<void> {
  if (finished.length === 0) return;
  const { options } = context;
  const again = await survey.lookAgain(options);
  const lists = await thoseStillThere(o.repository, finished, options);
  const kept = new Set([...again.judged.kept, ...again.judged.unexplained]);
  const total = lists.reduce((sum, { list }) => sum + sizeOfList(list), 0);
  const removal = {
    ...removerOf(o, context, total),
    inventory: survey.inventory,
    lists,
    isNeededRelocation: (name: string) => survey.marker.neededRelocations.has(name),
    isKeptRoot: (rootKey: string) => kept.has(rootKey),
    keep: (rootKeys: readonly string[]) => survey.keep(rootKeys, options),
  };
  await removeCondemned(removal, removed);
}

/** By a fresh look at the roots, after theirs are gone. */
async function removeTheUnshared(
  o: CollectOptions,
  context: Context,
  { plan }: Survey,
  removed: Removed,
): Promise<void> {
  // Once: a second time comes when there was no space for a list.
  if (plan.unshared.length === 0 || removed.isUnsharedGone) return;
  removed.isUnsharedGone = true;
  const roots = await listRoots(o.repository, context.options);
  const withRoot = new Set(Array.from(roots.keys(), (key) => sessionOfRoot(key)?.sessionId));
  const remover = removerOf(o, context, plan.unshared.length);
  await removeUnshared(remover, removed, plan.unshared, (id) => withRoot.has(id));
}

function removerOf(
  { repository, logger, onProgress }: CollectOptions,
  { collector, options }: Context,
  total: number,
): Remover {
  const onRemoved = (done: number): void => onProgress?.({ stage: "removing", done, total });
  return { repository, collector, logger, options, onRemoved };
}

/**
 * A list that is gone was finished by another collector while this one was paused.
 */
async function thoseStillThere(
  { store }: Repository,
  lists: readonly ListInWork[],
  options: CallOptions,
): Promise<readonly ListInWork[]> {
  const there: ListInWork[] = [];
  for (const list of lists) {
    if ((await store.head(list.name, options)) !== undefined) there.push(list);
  }
  return there;
}
