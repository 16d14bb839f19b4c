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
import { copyRecords, putBack } from "./repair-from-copy.ts";
import { type Found, searchRecords, type Wanted } from "./repair-search.ts";
import { type ChunkChecks, createChunkChecks } from "./verify-chunks.ts";
import { packIdOf } from "./verify-history.ts";
import { verifyRoots } from "./verify-others.ts";
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
  /** Another copy of the same repository, to take from what is nowhere else. */
  readonly copy?: Repository;
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
/** A root that is put back may miss its disk's record, and no more. */
const putBackRounds = 3;

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
  const { repository, session, signal } = o;
  const startedMs = repository.clock.now();
  const packs = await listPacks(repository, signal);
  const damage = await openDamageNotes(o);
  const putBackNames: string[] = [];
  let before = await survey({ ...o, packs, damage });
  const hadDamage = new Set(before.report.found().damagedPoints.map(({ rootKey }) => rootKey));
  for (let round = 0; o.copy !== undefined && round < putBackRounds; round += 1) {
    const names = before.report.found().damagedObjects.map(({ object }) => object);
    const isDryRun = session === undefined;
    const done = await putBack({ repository, copy: o.copy, signal, names, isDryRun });
    putBackNames.push(...done);
    if (done.length === 0 || isDryRun) break;
    // What was put back may need more.
    before = await survey({ ...o, packs, damage });
  }
  const tried = new Map<string, Wanted>();
  const found: Found[] = [];
  const relocations: string[] = [];
  let after = before;
  for (;;) {
    // A leaf that is found shows which chunks it needs.
    const fresh = after.wanted.filter((wanted) => !tried.has(keyOf(wanted)));
    for (const wanted of fresh) tried.set(keyOf(wanted), wanted);
    const now = await findAll({ ...o, packs }, fresh);
    found.push(...now);
    if (session === undefined || now.length === 0) break;
    relocations.push(...(await relocate(session, now, signal)));
    after = await survey({ ...o, packs, damage });
  }
  for (const { places } of tried.values()) places.forEach(damage.bad);
  if (session !== undefined) {
    const { report, chunks } = after;
    const record = damage.assess({ report, chunks, history: undefined, isOfAll: true });
    if (record !== undefined) await session.objects.putNew("damaged", "damage", record, { signal });
  }
  const { damagedPoints, damagedObjects } = after.report.found();
  const remaining = new Set(damagedPoints.map(({ rootKey }) => rootKey));
  const report = {
    isDryRun: session === undefined,
    points: after.points.length,
    recordsBad: new Set(Array.from(tried.values(), ({ id }) => toHex(id))).size,
    recordsFound: new Set(found.map(({ wanted }) => toHex(wanted.id))).size,
    relocations,
    putBack: putBackNames,
    healedPoints: after.points
      .filter(({ rootKey }) => hadDamage.has(rootKey) && !remaining.has(rootKey))
      .map(({ pointId, vmName, takenAt }) => ({ pointId, name: vmName, takenAt })),
    damagedPoints,
    damagedObjects,
    seconds: Math.max(0, repository.clock.now() - startedMs) / 1000,
  };
  o.logger.info("repository repaired", {
    ...report,
    healedPoints: report.healedPoints.length,
    damagedPoints: damagedPoints.length,
    damagedObjects: damagedObjects.length,
  });
  return report;
}

function keyOf({ id, places }: Wanted): string {
  const at = places.map(({ packId, offset }) => `${toHex(packId)}:${offset}`);
  return `${toHex(id)} ${at.sort().join(" ")}`;
}

type Looking = Running & {
  readonly packs: readonly PackToRead[];
  readonly damage: DamageNotes;
};

/** What is damaged, and which records would heal it. */
async function survey(o: Looking) {
  const report = createDamageReport();
  await verifyRoots({ ...o, report });
  const points = await listPoints(o, report);
  const wanted = new Map<string, Wanted & { readonly places: BadRecord[] }>();
  const onBad = (bad: BadRecord): void => {
    const key = toHex(bad.id);
    const known = wanted.get(key);
    const isKnown = known?.places.some(({ packId, offset }) => isSame(bad, packId, offset));
    if (known === undefined) wanted.set(key, { id: bad.id, length: bad.length, places: [bad] });
    else if (isKnown !== true) known.places.push(bad);
  };
  const chunks = await look(o, { report, points, onBad });
  return { report, points, chunks, wanted: [...wanted.values()] };
}

/** In this repository, else in the copy. */
async function findAll(
  o: Running & { readonly packs: readonly PackToRead[] },
  wanted: readonly Wanted[],
): Promise<readonly Found[]> {
  if (wanted.length === 0) return [];
  const { repository, session, copy, signal } = o;
  const condemned = session?.condemned ?? (await repository.sessions.condemned.load({ signal }));
  const isForbidden = (packId: string): boolean =>
    condemned.packs.has(packId) || condemned.compacting.has(packId);
  const found = await searchRecords({ ...o, wanted, isForbidden, onProgress: o.onSearch });
  if (copy === undefined) return found;
  const isFound = new Set(found.map((one) => one.wanted));
  const rest = wanted.filter((one) => !isFound.has(one));
  return [...found, ...(await copyRecords({ ...o, copy, wanted: rest }))];
}

/** Walks over points and reads of their chunks what may be damaged. */
async function look(
  o: Looking,
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
