import type { LockedObject } from "../../ports/object-lock.ts";
import type { CallOptions, ObjectLocks } from "../../ports/object-store.ts";
import { toHex } from "../format/bytes.ts";
import { packName } from "../pack/pack.ts";
import type { Repository } from "../repository.ts";
import { isOpen, sessionOfId } from "../session/session-state.ts";
import { inParallel } from "./in-parallel.ts";
import type { KnownRoot } from "./known-root.ts";
import { findNeededRecords, movesTo, type RelocationEdges } from "./needed-records.ts";
import { flags } from "./object-table.ts";
import { compactBatch, condemnedMax, movesMax, readsInFlight } from "./safety.ts";
import type { Survey } from "./survey.ts";

export type ChosenPack = {
  /** In hexadecimal. */
  readonly packId: string;
  readonly sizeBytes: number;
  readonly neededBytes: number;
};

export type PackChoice = {
  readonly chosen: readonly ChosenPack[];
  readonly locked: readonly LockedObject[];
  readonly movedTooOften: number;
  /** Of those that were not looked at any more, perhaps not all are worth it. */
  readonly beyondLimit: number;
};

/**
 * The packs of which less than `share` is needed, to the record; with `reseal` also those that are sealed under older key epochs. Packs whose
 * session is open, and what a condemned list names, are left out.
 */
export async function choosePacks(
  o: {
    readonly repository: Repository;
    readonly survey: Survey;
    readonly roots: readonly KnownRoot[];
    readonly mayLack: (rootKey: string) => boolean;
    readonly edges: RelocationEdges;
    readonly share: number;
    readonly reseal: boolean;
    /** Stored bytes of packs, at most; one pack at least. */
    readonly limitBytes: number;
    readonly alive: () => Promise<void>;
  },
  options: CallOptions,
): Promise<PackChoice> {
  const { survey, reseal } = o;
  const { pack } = survey.inventory.tables;
  const { candidates, movedTooOften } = findCandidates(o);
  const chosen: ChosenPack[] = [];
  const locked: LockedObject[] = [];
  let beyondLimit = 0;
  let bytes = 0;
  for (let at = 0; at < candidates.length; at += compactBatch) {
    const packIds = candidates.slice(at, at + compactBatch);
    const needed = await findNeededRecords({ ...o, packIds }, options);
    const worth: ChosenPack[] = [];
    for (const packId of packIds) {
      const row = pack.find(Buffer.from(packId, "hex"));
      const sizeBytes = pack.sizeBytes(row);
      let neededBytes = 0;
      for (const storedLength of needed.of(packId).values()) neededBytes += storedLength;
      const isOld = reseal && pack.has(row, flags.oldEpoch);
      if (!isOld && neededBytes >= sizeBytes * o.share) continue;
      worth.push({ packId, sizeBytes, neededBytes });
    }
    const itsLocked = await findLocked(o.repository, worth, options);
    for (const one of worth) {
      const lock = itsLocked.get(one.packId);
      const isFull = chosen.length > 0 && bytes + one.sizeBytes > o.limitBytes;
      if (lock !== undefined) locked.push(lock);
      else if (isFull || chosen.length >= condemnedMax) beyondLimit += 1;
      else {
        chosen.push(one);
        bytes += one.sizeBytes;
      }
    }
    if (beyondLimit > 0) {
      beyondLimit += Math.max(0, candidates.length - at - compactBatch);
      break;
    }
  }
  return { chosen, locked, movedTooOften, beyondLimit };
}

/** By what disk records say of whole packs: where leaves share chunks that is more than what is needed, where disks do, it may be less. */
function findCandidates({
  survey,
  edges,
  share,
  reseal,
}: {
  readonly survey: Survey;
  readonly edges: RelocationEdges;
  readonly share: number;
  readonly reseal: boolean;
}): { readonly candidates: readonly string[]; readonly movedTooOften: number } {
  const { pack } = survey.inventory.tables;
  const condemned = new Set(
    [...survey.lists.values()].flatMap(({ packs, compacting }) => [...packs, ...compacting]),
  );
  const moves = movesTo(edges);
  const candidates: string[] = [];
  let movedTooOften = 0;
  for (let row = 0; row < pack.count(); row += 1) {
    if (!pack.has(row, flags.listed) || !pack.has(row, flags.needed)) continue;
    const neededBytes = pack.neededBytes(row);
    const sizeBytes = pack.sizeBytes(row);
    const isOverstated = neededBytes > sizeBytes;
    const isOld = reseal && pack.has(row, flags.oldEpoch);
    if (!isOld && !isOverstated && neededBytes >= sizeBytes * share) continue;
    const packId = toHex(pack.id(row));
    if (condemned.has(packId)) continue;
    if (isOpen(survey.inventory.sessions.get(sessionOfId(packId)))) continue;
    if ((moves.get(packId) ?? 0) >= movesMax) movedTooOften += 1;
    else candidates.push(packId);
  }
  // Packs of one session lie together: a disk's, mostly.
  return { candidates: candidates.sort(), movedTooOften };
}

/** Those that the store would refuse to remove now. */
async function findLocked(
  { store, clock }: Repository,
  packs: readonly ChosenPack[],
  options: CallOptions,
): Promise<ReadonlyMap<string, LockedObject>> {
  const locked = new Map<string, LockedObject>();
  const locks: ObjectLocks | undefined = store.locks;
  if (locks === undefined) return locked;
  await inParallel(packs, { inFlightMax: readsInFlight }, async ({ packId }) => {
    const key = packName(Buffer.from(packId, "hex"));
    const state = await locks.look(key, options);
    if (state === undefined) return;
    const { retention, legalHold } = state;
    const untilMs = retention?.untilMs ?? 0;
    if (!legalHold && untilMs <= clock.now()) return;
    const until = untilMs > 0 ? new Date(untilMs).toISOString() : undefined;
    locked.set(packId, { key, until, legalHold });
  });
  return locked;
}
