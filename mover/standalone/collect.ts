import { hostname } from "node:os";
import type { CollectReport } from "@holdfast/shared/contracts/standalone";
import { isFailure } from "@holdfast/shared/domain/failure";
import {
  type CollectProgress,
  collect as collectGarbage,
} from "@holdfast/shared/repository/maintenance/collect";
import { inParallel } from "@holdfast/shared/repository/maintenance/in-parallel";
import { extendLocks } from "@holdfast/shared/repository/maintenance/locks";
import type { Repository } from "@holdfast/shared/repository/repository";
import { standaloneHolder } from "../hold-session.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** People hear at most this often how far it is. */
const noteMs = 5000;
const headsInFlight = 16;

export async function collectRepository(
  context: StandaloneContext,
  request: Request<"repository-collect">,
): Promise<CollectReport> {
  const repository = await context.open(request);
  const { expire, dryRun } = request;
  const report = await collectIn(context, repository, request, expire ?? []);
  if (dryRun) return report;
  await keepLocked(context, repository);
  return expire === undefined
    ? report
    : { ...report, gone: await findGone(context, repository, expire) };
}

async function findGone(
  { signal }: StandaloneContext,
  { store }: Repository,
  rootKeys: readonly string[],
): Promise<string[]> {
  const gone: string[] = [];
  await inParallel(rootKeys, { inFlightMax: headsInFlight }, async (rootKey) => {
    if ((await store.head(rootKey, { signal })) === undefined) gone.push(rootKey);
  });
  return gone;
}

/** What stays is to stay locked. A failure of this is told, and is no failure of the collection. */
async function keepLocked(context: StandaloneContext, repository: Repository): Promise<void> {
  const { lock } = repository;
  const { signal } = context;
  if (lock === undefined) return;
  try {
    const { extended, objects } = await extendLocks(repository, { lock, dryRun: false, signal });
    const message = `Object Lock: ${extended} of ${objects} objects that points need were extended`;
    context.emit({ type: "note", message });
  } catch (error) {
    if (signal.aborted || !isFailure(error)) throw error;
    const message = `the locks of what points need were not extended: ${error.message}`;
    context.emit({ type: "warning", message });
  }
}

/** A collection that also removes these points. */
export async function collectIn(
  context: StandaloneContext,
  repository: Repository,
  {
    dryRun,
    waitSeconds,
    allowShare,
    allowEmpty,
    dropDamagedLists,
  }: Pick<
    Request<"repository-collect">,
    "dryRun" | "waitSeconds" | "allowShare" | "allowEmpty" | "dropDamagedLists"
  >,
  expire: readonly string[],
): Promise<CollectReport> {
  const { clock, logger, signal } = context;
  let notedMs = clock.now();
  const onProgress = (progress: CollectProgress): void => {
    if (clock.now() - notedMs < noteMs) return;
    notedMs = clock.now();
    context.emit({ type: "note", message: describe(progress) });
  };
  const report = await collectGarbage({
    repository,
    expire,
    isDryRun: dryRun,
    waitMs: waitSeconds * 1000,
    allowShare,
    allowEmpty,
    dropDamagedLists,
    holder: `garbage collection, ${standaloneHolder()}`,
    observer: hostname(),
    onProgress,
    logger,
    signal,
  });
  for (const { rootKey } of report.unexplained) {
    const message = `${rootKey} is no recovery point any more: objects of its session are gone`;
    context.emit({ type: "warning", message });
  }
  for (const name of report.missingPacks) {
    context.emit({ type: "warning", message: `${name} is missing, and a recovery point needs it` });
  }
  return {
    ...report,
    points: {
      ...report.points,
      expired: [...report.points.expired],
      held: [...report.points.held],
    },
    garbage: {
      ...report.garbage,
      classes: [...report.garbage.classes],
      largest: [...report.garbage.largest],
    },
    index: { ...report.index, unreadable: [...report.index.unreadable] },
    waitingFor: [...report.waitingFor],
    fenced: report.fenced.map((its) => ({ ...its, adopted: [...its.adopted] })),
    locked: [...report.locked],
    unexplained: [...report.unexplained],
    missingPacks: [...report.missingPacks],
    unknown: { ...report.unknown, names: [...report.unknown.names] },
  };
}

function describe({ stage, done, total }: CollectProgress): string {
  switch (stage) {
    case "listing":
      return `Listing: ${done} objects`;
    case "marking":
      return `Reading what points need: ${done} disks`;
    case "waiting":
      return `Waiting for ${done} sessions`;
    case "removing":
      return `Removing: ${done} of ${total ?? "?"} objects`;
    default:
      return stage satisfies never;
  }
}
