import { availableParallelism } from "node:os";
import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import { createRelocations } from "@holdfast/shared/repository/pack/relocations";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { type ChunkOpeners, createChunkOpeners } from "./chunk-openers.ts";
import { type DamageNotes, openDamageNotes } from "./damage-notes.ts";
import { createDamageReport, type DamageReport } from "./damage-report.ts";
import { type ChunkChecks, createChunkChecks } from "./verify-chunks.ts";
import { openVerifyHistory, type VerifyHistory } from "./verify-history.ts";
import { createVerifyNotes, type VerifyNotes } from "./verify-notes.ts";
import {
  verifyCondemned,
  verifyIndex,
  verifyKeys,
  verifyRelocations,
  verifyRoots,
  verifySessions,
} from "./verify-others.ts";
import { verifyPacks } from "./verify-packs.ts";
import { verifyPoints } from "./verify-points.ts";

/**
 * Reads the repository and says which points, disks and byte ranges cannot be restored.
 *
 * A whole run reads all packs that are due, each stored byte once and in long ranges, then what every point needs to find its chunks. A sample and a
 * run over one point read as a restore would. Roots, metadata, disk records and leaves are read in any case.
 *
 * What always holds: nothing but notes is written (what was verified when, what is damaged), and none where the storage refuses; what is damaged or
 * missing is reported and the rest still checked, while a store that does not answer ends the run with its failure: that is no damage.
 * Memory does not grow with disks' sizes beyond 12 to 32 bytes for each chunk and leaf met, up to a limit, and some dozen bytes a pack.
 */
export type VerifyOptions = {
  readonly repository: Repository;
  /** Share of the chunks that is read, above 0 to 1. */
  readonly share: number;
  /** This point only; what no restore of it reads is then left out. */
  readonly pointId?: string;
  /** Of a whole run. */
  readonly whole?: {
    /** Only packs that were not read for so long; absent: all. */
    readonly everyMs?: number;
    /** Ends the reading of packs early: stored bytes, and time since the run began. What is due is left to the next run. */
    readonly bytesMax?: number;
    readonly durationMs?: number;
    /** Not to continue a run that was cut off. */
    readonly restart?: boolean;
  };
  /** While it is open, nothing that is read here is removed; what is found is remembered in its name. Without one, nothing is. */
  readonly session?: Session | undefined;
  /** Bytes of all points' disks. */
  readonly onProgress: (now: Progress) => void;
  /** Stored bytes of a whole run. */
  readonly onPackProgress?: (now: Progress) => void;
  readonly signal: AbortSignal;
  /** Worker threads; 0 works in this thread. Default: one a core, at most 8. */
  readonly workers?: number;
  readonly logger: Logger;
};

type Progress = { readonly bytesDone: number; readonly bytesTotal: number };

const workersMax = 8;

/**
 * Fails with `not-found` when there is no such point, with the store's failures, `cancelled` when stopped. Damage is no failure
 * but in the report.
 */
export async function verifyRepository(o: VerifyOptions): Promise<VerifyReport> {
  const { repository } = o;
  const stop = new AbortController();
  const signal = AbortSignal.any([o.signal, stop.signal]);
  const workers = o.workers ?? Math.min(availableParallelism(), workersMax);
  let openers: ChunkOpeners | undefined;
  try {
    signal.throwIfAborted();
    openers = createChunkOpeners(repository.secrets, workers);
    return await verify({ ...o, signal, openers, notes: createVerifyNotes({ ...o, signal }) });
  } catch (error) {
    stop.abort(error);
    if (o.signal.aborted) throw asFailure(o.signal.reason, "cancelled", "verification stopped");
    throw error;
  } finally {
    stop.abort();
    await openers?.stop();
  }
}

type Running = VerifyOptions & { readonly openers: ChunkOpeners; readonly notes: VerifyNotes };

async function verify(o: Running): Promise<VerifyReport> {
  const { repository, signal, notes } = o;
  const startedMs = repository.clock.now();
  const report = createDamageReport();
  const relocations = createRelocations(repository);
  const isWhole = o.share === 1 && o.pointId === undefined;
  const history = isWhole
    ? await openVerifyHistory({ ...o, ...o.whole, putNew: notes.putNew })
    : undefined;
  const damage = await openDamageNotes({ repository, signal });
  const onUnsteady = (object: string, failure: Failure): void =>
    report.harmless(
      object,
      `read wrong once and right again, so suspect this machine's memory or the way to the storage: ${failure.message}`,
    );
  const chunks = createChunkChecks({
    ...o,
    relocations,
    isTrustedAt: ({ packId, offset }) =>
      history?.isTrusted(packId) === true && !damage.known.places.has(packId, offset),
    wasRead: (packId) => history?.wasRead(packId) === true,
    onUnsteady,
  });
  const packs =
    history &&
    (await readPacks({ ...o, history, chunks, startedMs, onUnsteady, onBad: damage.unknownPack }));
  const points = await listPoints(o, report);
  await verifyPoints({
    ...o,
    report,
    chunks,
    relocations,
    points,
    onBad: damage.bad,
  });
  if (o.pointId === undefined) await verifyOthers({ ...o, report, chunks, history, damage });
  await report.keepPoints(
    async ({ rootKey }) => (await repository.store.head(rootKey, { signal })) !== undefined,
  );
  const found = damage.assess({ report, chunks, history, isOfAll: isWhole });
  if (found !== undefined) await notes.putNew("damaged", "damage", found);
  await history?.end(packs?.packsLeft === 0);
  return describe(o, { startedMs, points, report, chunks, history, packs });
}

type PacksRead = { packsRead: number; packsLeft: number; bytesLeft: number };

async function readPacks(
  o: Running & {
    readonly history: VerifyHistory;
    readonly chunks: ChunkChecks;
    readonly startedMs: number;
    readonly onUnsteady: (object: string, failure: Failure) => void;
    readonly onBad: (packId: Uint8Array, failure: Failure) => void;
  },
): Promise<PacksRead> {
  const { repository, history, whole } = o;
  const { due, bytesDue } = history;
  const counts = { packsRead: 0, packsLeft: history.packsDue, bytesLeft: bytesDue };
  const bytesMax = whole?.bytesMax ?? Number.POSITIVE_INFINITY;
  const endsMs = o.startedMs + (whole?.durationMs ?? Number.POSITIVE_INFINITY);
  let bytesBegun = 0;
  let bytesDone = 0;
  const progress = (bytes: number): void => {
    bytesDone += bytes;
    o.onPackProgress?.({ bytesDone, bytesTotal: bytesDue });
  };
  await verifyPacks({
    ...o,
    packs: due,
    mayGoOn: ({ sizeBytes }) => {
      // One pack at least, so that the smallest budget comes round in the end.
      const isFirst = bytesBegun === 0;
      bytesBegun += sizeBytes;
      return isFirst || (bytesBegun <= bytesMax && repository.clock.now() < endsMs);
    },
    onPack: async (pack, verdict, failure) => {
      counts.packsRead += 1;
      counts.packsLeft -= 1;
      counts.bytesLeft -= pack.sizeBytes;
      if (verdict === "good") await history.good(pack);
      else history.damaged(pack);
      if (failure !== undefined) o.onBad(pack.packId, failure);
    },
    onBytes: progress,
  });
  return counts;
}

async function verifyOthers(
  o: Running & {
    readonly report: DamageReport;
    readonly chunks: ChunkChecks;
    readonly history: VerifyHistory | undefined;
    readonly damage: DamageNotes;
  },
): Promise<void> {
  const { report, chunks, history } = o;
  await verifySessions(o, await verifyRoots(o));
  await verifyKeys(o);
  await verifyCondemned(o);
  const { missed } = o.damage;
  await verifyRelocations(o, (packId) => missed(packId) || chunks.damaged().has(packId));
  await verifyIndex(o, {
    isListed: (packId) => history === undefined || history.isListed(packId),
    onMissing: o.damage.missingPack,
  });
  for (const [name, reason] of history?.unreadable ?? []) {
    report.harmless(name, `what it remembered is verified anew: ${reason}`);
  }
  o.damage.explain({ report, chunks });
}

function describe(
  o: Running,
  found: {
    readonly startedMs: number;
    readonly points: readonly PointSummary[];
    readonly report: DamageReport;
    readonly chunks: ChunkChecks;
    readonly history: VerifyHistory | undefined;
    readonly packs: PacksRead | undefined;
  },
): VerifyReport {
  const { history, points } = found;
  const seconds = Math.max(0, o.repository.clock.now() - found.startedMs) / 1000;
  const disks = points.reduce((sum, point) => sum + point.disks.length, 0);
  const counts = { points: points.length, disks, ...found.chunks.counts(), seconds };
  const notRemembered = o.notes.notRemembered();
  const whole = history &&
    found.packs && {
      packs: history.packs,
      bytesStored: history.bytesStored,
      ...found.packs,
      ages: { ...history.ages() },
      ...(history.resumedFrom === undefined
        ? {}
        : { resumedFrom: new Date(history.resumedFrom).toISOString() }),
      ...(notRemembered === undefined ? {} : { notRemembered }),
    };
  const damages = found.report.found();
  o.logger.info("repository verified", {
    ...counts,
    ...whole,
    share: o.share,
    damagedPoints: damages.damagedPoints.length,
    damagedObjects: damages.damagedObjects.length,
  });
  return { share: o.share, ...counts, ...damages, ...(whole === undefined ? {} : { whole }) };
}

/** Committed points, or one of them. Roots that do not open are reported. Fails with `not-found` for a point that is not there. */
export async function listPoints(
  {
    repository,
    pointId,
    signal,
  }: { readonly repository: Repository; readonly pointId?: string; readonly signal: AbortSignal },
  report: DamageReport,
): Promise<readonly PointSummary[]> {
  const points: PointSummary[] = [];
  let isUnreadableRoot = false;
  const onUnreadable = ({ key, failure }: { key: string; failure: Failure }): void => {
    // What it holds is unknown; its name tells whose it is.
    const name = key.slice(key.lastIndexOf("/") + 1);
    if (pointId !== undefined && !name.startsWith(`${pointId}-`)) return;
    isUnreadableRoot = true;
    report.object(key, failure.message);
  };
  for await (const point of repository.listPoints({ signal, onUnreadable })) {
    if (pointId === undefined || point.pointId === pointId) points.push(point);
  }
  if (pointId !== undefined && points.length === 0 && !isUnreadableRoot) {
    throw new Failure("not-found", {
      message: `${repository.store.url} has no recovery point ${JSON.stringify(pointId)}; \`holdfast image points\` lists them`,
    });
  }
  return points;
}
