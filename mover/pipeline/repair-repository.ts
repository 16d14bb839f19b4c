import { availableParallelism } from "node:os";
import type { RepairReport } from "@holdfast/shared/contracts/standalone";
import { asFailure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import {
  createRelocations,
  encodeRelocation,
  type RelocationRow,
  relocationName,
} from "@holdfast/shared/repository/pack/relocations";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { type ChunkOpeners, createChunkOpeners } from "./chunk-openers.ts";
import { type DamageNotes, openDamageNotes } from "./damage-notes.ts";
import { createDamageReport, type DamageReport } from "./damage-report.ts";
import { type Found, searchRecords, type Wanted } from "./repair-search.ts";
import { type ChunkChecks, createChunkChecks } from "./verify-chunks.ts";
import { packIdOf } from "./verify-history.ts";
import type { PackToRead } from "./verify-packs.ts";
import { type BadRecord, verifyPoints } from "./verify-points.ts";
import { listPoints } from "./verify-repository.ts";

/**
 * Makes points restorable again whose chunks or leaves were lost: finds the same bytes in other packs and writes down where they are. What is found nowhere is
 * marked as lost, so that the next backup stores it again; after that, another repair finds it for the older points, too.
 *
 * What always holds: nothing that is there is changed or removed, so what could be restored before can be restored after; only bytes that open and
 * have the right id are counted as found; points stay as they were written.
 */
export type RepairOptions = {
  readonly repository: Repository;
  /** In whose name it writes, and which packs it may not build on. Undefined: a dry run, nothing is written. */
  readonly session: Session | undefined;
  /** Reads all chunks that points need; otherwise what earlier verifications found damaged, what is missing, and all leaves. */
  readonly readAll: boolean;
  readonly onProgress: (now: Progress) => void;
  /** Packs searched for other copies. */
  readonly onSearch: (now: Progress) => void;
  readonly signal: AbortSignal;
  readonly workers?: number;
  readonly logger: Logger;
};

type Progress = { readonly bytesDone: number; readonly bytesTotal: number };

const workersMax = 8;

/** Fails with the store's failures, `session.ended`, `cancelled`. What cannot be repaired is no failure but in the report. */
export async function repairRepository(o: RepairOptions): Promise<RepairReport> {
  const workers = o.workers ?? Math.min(availableParallelism(), workersMax);
  const openers = createChunkOpeners(o.repository.secrets, workers);
  try {
    return await repair({ ...o, openers });
  } catch (error) {
    if (o.signal.aborted) throw asFailure(o.signal.reason, "cancelled", "repair stopped");
    throw error;
  } finally {
    await openers.stop();
  }
}

type Running = RepairOptions & { readonly openers: ChunkOpeners };

async function repair(o: Running): Promise<RepairReport> {
  const { repository, signal } = o;
  const startedMs = repository.clock.now();
  const packs = await listPacks(repository, signal);
  const before = createDamageReport();
  const points = await listPoints(o, before);
  const wanted = new Map<string, Wanted & { readonly places: BadRecord[] }>();
  const damage = await openDamageNotes(o);
  const onBad = (bad: BadRecord): void => {
    damage.bad(bad);
    const key = toHex(bad.id);
    const known = wanted.get(key);
    const isKnown = known?.places.some(({ packId, offset }) => isSame(bad, packId, offset));
    if (known === undefined) wanted.set(key, { id: bad.id, length: bad.length, places: [bad] });
    else if (isKnown !== true) known.places.push(bad);
  };
  const checks = await look({ ...o, packs, damage }, { report: before, points, onBad });

  const condemned = o.session?.condemned ?? (await repository.sessions.condemned.load({ signal }));
  const isForbidden = (packId: string): boolean =>
    condemned.packs.has(packId) || condemned.compacting.has(packId);
  const found =
    wanted.size === 0
      ? []
      : await searchRecords({
          ...o,
          wanted: [...wanted.values()],
          packs,
          isForbidden,
          onProgress: o.onSearch,
        });
  const relocations = o.session === undefined ? [] : await relocate(o.session, found, signal);

  const hadDamage = new Set(before.found().damagedPoints.map(({ rootKey }) => rootKey));
  let after = before;
  if (relocations.length > 0) {
    after = createDamageReport();
    await listPoints(o, after);
    const affected = points.filter(({ rootKey }) => hadDamage.has(rootKey));
    await look(
      { ...o, packs, damage },
      { report: after, points: affected, onBad: () => undefined },
    );
  }
  if (o.session !== undefined) {
    const record = damage.assess({
      report: after,
      chunks: checks,
      history: undefined,
      isOfAll: true,
    });
    if (record !== undefined) {
      await o.session.objects.putNew("damaged", "damage", record, { signal });
    }
  }
  const { damagedPoints, damagedObjects } = after.found();
  const remaining = new Set(damagedPoints.map(({ rootKey }) => rootKey));
  const healed = points.filter(({ rootKey }) => hadDamage.has(rootKey) && !remaining.has(rootKey));
  const report = {
    isDryRun: o.session === undefined,
    points: points.length,
    recordsBad: wanted.size,
    recordsFound: found.length,
    relocations: [...relocations],
    healedPoints: healed.map(({ pointId, vmName, takenAt }) => ({
      pointId,
      name: vmName,
      takenAt,
    })),
    damagedPoints,
    damagedObjects,
    seconds: Math.max(0, repository.clock.now() - startedMs) / 1000,
  };
  o.logger.info("repository repaired", {
    ...report,
    healedPoints: healed.length,
    damagedPoints: damagedPoints.length,
    damagedObjects: damagedObjects.length,
  });
  return report;
}

/** Walks over points and reads of their chunks what may be damaged. */
async function look(
  o: Running & { readonly packs: readonly PackToRead[]; readonly damage: DamageNotes },
  {
    report,
    points,
    onBad,
  }: {
    readonly report: DamageReport;
    readonly points: readonly PointSummary[];
    readonly onBad: (bad: BadRecord) => void;
  },
): Promise<ChunkChecks> {
  const relocations = createRelocations(o.repository);
  const listed = new Set(o.packs.map(({ packId }) => toHex(packId)));
  const { places } = o.damage.known;
  const chunks = createChunkChecks({
    ...o,
    relocations,
    share: 1,
    isTrustedAt: ({ packId, offset }) =>
      !o.readAll && listed.has(toHex(packId)) && !places.has(packId, offset),
    wasRead: () => false,
    onUnsteady: (object, failure) => report.harmless(object, failure.message),
  });
  await verifyPoints({ ...o, report, chunks, relocations, points, onBad });
  return chunks;
}

async function relocate(
  session: Session,
  found: readonly Found[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const rows = new Map<string, { readonly packId: Uint8Array; readonly rows: RelocationRow[] }>();
  for (const { wanted, at } of found) {
    for (const { packId, offset } of wanted.places) {
      const key = toHex(packId);
      const its = rows.get(key) ?? { packId, rows: [] };
      rows.set(key, its);
      its.rows.push({ offset, to: at });
    }
  }
  const names: string[] = [];
  for (const relocation of rows.values()) {
    const name = relocationName(relocation.packId, session.newId());
    await session.objects.put(name, "relocation", encodeRelocation(relocation), { signal });
    names.push(name);
  }
  return names;
}

async function listPacks(
  { store }: Repository,
  signal: AbortSignal,
): Promise<readonly PackToRead[]> {
  const packs: PackToRead[] = [];
  for await (const { key, sizeBytes } of store.list("packs/", { signal })) {
    const packId = packIdOf(key);
    if (packId !== undefined) packs.push({ packId, sizeBytes });
  }
  return packs;
}

function isSame(bad: BadRecord, packId: Uint8Array, offset: number): boolean {
  return bad.offset === offset && Buffer.compare(bad.packId, packId) === 0;
}
