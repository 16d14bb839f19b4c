import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { type HeldSession, withReadSession, withSession } from "../hold-session.ts";
import { createChunkFetcher } from "./chunk-fetcher.ts";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { type CopiedBytes, type CopyBase, copyPoint } from "./copy-point.ts";
import { isUnreadable } from "./prepare-leaf.ts";

/**
 * Copies points to a second repository, which has keys and settings of its own. Each point is one session there and one in the source, so neither
 * keeps collections waiting for longer than a point takes; each is complete or not there at all. Repeating it copies what is missing.
 */
export type CopyPointsOptions = {
  readonly source: Repository;
  readonly target: Repository;
  readonly isWanted: (point: PointSummary) => boolean;
  /** Nothing is written. */
  readonly isDryRun: boolean;
  readonly holder: string;
  readonly clock: Clock;
  readonly throttled?: (reader: DiskReader) => DiskReader;
  readonly onProgress?: (now: { readonly bytesDone: number; readonly bytesTotal: number }) => void;
  readonly onPoint?: (outcome: PointOutcome) => void;
  readonly onUnreadable?: (found: { readonly key: string; readonly failure: Failure }) => void;
  readonly onNoSession?: (message: string) => void;
  /** Worker threads for cutting and for opening; 0 works in this thread. */
  readonly workers?: number;
  readonly signal: AbortSignal;
  readonly logger: Logger;
};

export type PointOutcome = {
  readonly pointId: string;
  readonly name: string;
  readonly takenAt: string;
  /** `missing` in a dry run only; `damaged`: it cannot be read in full; `going`: a collection removes it from the source. */
  readonly state: "copied" | "present" | "missing" | "damaged" | "going";
  readonly reason?: string;
};

export type CopyReport = CopiedBytes & {
  readonly points: readonly PointOutcome[];
  readonly seconds: number;
};

const fetcherBytes = 256 * 1024 * 1024;
const openersDefault = 2;

export async function copyPoints(o: CopyPointsOptions): Promise<CopyReport> {
  const { source, target, signal, clock } = o;
  if (source.repositoryId === target.repositoryId) {
    throw new Failure("input.invalid", {
      message: `${target.store.url} is a replica of ${source.store.url}: it is brought up to date with --replica`,
    });
  }
  const startedMs = clock.now();
  const all = await pointsByVm(source, { signal, ...listing(o) });
  const progress = createProgress(o, all);
  const loader = createChunkIndexLoader(target, o);
  const outcomes: PointOutcome[] = [];
  const sum = { bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  let toldNoSession = false;

  async function copyOne(point: PointSummary, base: CopyBase | undefined): Promise<PointOutcome> {
    const inSource = { ...held(o, source, [point.rootKey]) };
    const onNoSession = (message: string): void => {
      if (!toldNoSession) o.onNoSession?.(message);
      toldNoSession = true;
    };
    const inTarget = held(o, target, base === undefined ? [] : [base.target.rootKey]);
    return await withSession(inTarget, (session, targetSignal) =>
      withReadSession({ ...inSource, signal: targetSignal, onNoSession }, (reading, its) =>
        copyIn({ point, base, session, reading, signal: its }),
      ),
    );
  }

  async function copyIn(its: {
    readonly point: PointSummary;
    readonly base: CopyBase | undefined;
    readonly session: Session;
    readonly reading: Session | undefined;
    readonly signal: AbortSignal;
  }): Promise<PointOutcome> {
    const { point, session, reading } = its;
    const options = { signal: its.signal };
    if (reading && !(await source.sessions.isUsablePoint(reading, point.rootKey, options))) {
      return outcome(point, "going");
    }
    const isBaseUsable =
      its.base !== undefined &&
      (await target.sessions.isUsablePoint(session, its.base.target.rootKey, options));
    await using fetcher = createChunkFetcher({
      repository: source,
      cacheBytes: fetcherBytes,
      workers: o.workers ?? openersDefault,
    });
    const copied = await copyPoint({
      ...{ source, target, session, fetcher, point },
      index: await loader.load(session, its.signal),
      base: isBaseUsable ? its.base : undefined,
      throttled: o.throttled ?? ((reader) => reader),
      onProgress: (bytesDone) => progress.at(bytesDone),
      ...(o.workers === undefined ? {} : { workers: o.workers }),
      ...{ signal: its.signal, logger: o.logger },
    });
    sum.bytesRead += copied.bytesRead;
    sum.bytesNew += copied.bytesNew;
    sum.bytesStored += copied.bytesStored;
    return outcome(point, "copied");
  }

  const tell = (its: PointOutcome): void => {
    outcomes.push(its);
    o.onPoint?.(its);
  };

  for (const [vmKey, points] of all) {
    const wanted = points.filter(o.isWanted);
    if (wanted.length === 0) continue;
    for (const point of wanted) {
      // Anew for each: the one before it is the best to build on.
      const there = (await pointsByVm(target, { signal, vmKey })).get(vmKey) ?? [];
      const known = there.find(({ pointId }) => pointId === point.pointId);
      if (known !== undefined) tell(describePresent(point, known, source));
      else if (o.isDryRun) tell(outcome(point, "missing"));
      else {
        const base = chooseBase(point, { source, sourcePoints: points, targetPoints: there });
        tell(await orDamaged(point, () => copyOne(point, base)));
      }
      progress.done(point);
    }
  }
  return { points: outcomes, ...sum, seconds: (clock.now() - startedMs) / 1000 };
}

const listing = ({ onUnreadable }: CopyPointsOptions) =>
  onUnreadable === undefined ? {} : { onUnreadable };

function held(
  { holder, clock, logger, signal }: CopyPointsOptions,
  repository: Repository,
  pins: readonly string[],
): HeldSession {
  return { kind: "copy", holder, pins, repository, clock, logger, signal };
}

/** By VM, the oldest first. */
async function pointsByVm(
  repository: Repository,
  options: Parameters<Repository["listPoints"]>[0],
): Promise<ReadonlyMap<string, readonly PointSummary[]>> {
  const found = new Map<string, PointSummary[]>();
  for await (const point of repository.listPoints(options)) {
    const its = found.get(point.vmKey);
    if (its === undefined) found.set(point.vmKey, [point]);
    else its.push(point);
  }
  for (const points of found.values()) points.sort(byAge);
  return found;
}

function byAge(left: PointSummary, right: PointSummary): number {
  const by = Date.parse(left.takenAt) - Date.parse(right.takenAt);
  return by !== 0 && !Number.isNaN(by) ? by : left.pointId < right.pointId ? -1 : 1;
}

/** The newest that is older than the point and is in both; without one, the oldest that is newer. */
function chooseBase(
  point: PointSummary,
  o: {
    readonly source: Repository;
    readonly sourcePoints: readonly PointSummary[];
    readonly targetPoints: readonly PointSummary[];
  },
): CopyBase | undefined {
  const byRoot = new Map(o.sourcePoints.map((its) => [its.rootKey, its]));
  const pairs = o.targetPoints.flatMap((target) => {
    const { copiedFrom } = target;
    if (copiedFrom?.repositoryId !== o.source.repositoryId) return [];
    const source = byRoot.get(copiedFrom.rootKey);
    return source === undefined ? [] : [{ source, target }];
  });
  const older = pairs.filter(({ source }) => byAge(source, point) < 0);
  return older.at(-1) ?? pairs[0];
}

/** A point of the same id that was made otherwise is not touched. */
function describePresent(
  point: PointSummary,
  known: PointSummary,
  source: Repository,
): PointOutcome {
  const { copiedFrom } = known;
  const isCopy =
    copiedFrom?.repositoryId === source.repositoryId && copiedFrom.rootKey === point.rootKey;
  if (isCopy) return outcome(point, "present");
  return outcome(point, "present", `${known.rootKey} is no copy of ${point.rootKey}`);
}

async function orDamaged(
  point: PointSummary,
  copy: () => Promise<PointOutcome>,
): Promise<PointOutcome> {
  try {
    return await copy();
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return outcome(point, "damaged", error.message);
  }
}

function outcome(
  { pointId, vmName, takenAt }: PointSummary,
  state: PointOutcome["state"],
  reason?: string,
): PointOutcome {
  return { pointId, name: vmName, takenAt, state, ...(reason === undefined ? {} : { reason }) };
}

function createProgress(
  o: Pick<CopyPointsOptions, "isWanted" | "onProgress">,
  all: ReadonlyMap<string, readonly PointSummary[]>,
) {
  const sizeOf = ({ disks }: PointSummary): number =>
    disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const wanted = [...all.values()].flat().filter(o.isWanted);
  const bytesTotal = wanted.reduce((sum, point) => sum + sizeOf(point), 0);
  let bytesBefore = 0;
  return {
    at: (bytesOfPoint: number): void =>
      o.onProgress?.({ bytesDone: bytesBefore + bytesOfPoint, bytesTotal }),
    done: (point: PointSummary): void => {
      bytesBefore += sizeOf(point);
      o.onProgress?.({ bytesDone: bytesBefore, bytesTotal });
    },
  };
}
