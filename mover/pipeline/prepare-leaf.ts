import type { Failure } from "@holdfast/shared/domain/failure";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { type Leaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import {
  createLeafStore,
  type LoadedLeaf,
} from "@holdfast/shared/repository/extent-map/leaf-store";
import type { LeafRef } from "@holdfast/shared/repository/extent-map/leaf-table";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { blockBytes } from "@holdfast/shared/repository/format/settings";
import type { DamagedPlaces } from "@holdfast/shared/repository/pack/damage";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import {
  type ByteRun,
  blockStates,
  keepEntries,
  type LeafExtents,
  planChecks,
  runsOf,
  type SampleCheck,
  throwSamples,
} from "./leaf-plan.ts";

/** One leaf, decided: what is read, what is compared, what is taken over from the previous point. */
export type LeafJob = {
  readonly index: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly reads: readonly ByteRun[];
  readonly checks: readonly SampleCheck[];
  readonly previous:
    | {
        readonly summary: Uint8Array;
        readonly entries: Uint8Array;
        readonly kept: readonly number[];
      }
    | undefined;
  /** Known without reading anything: the previous point's leaf, or a hole. Samples are compared all the same. */
  readonly settled: LeafRef | "hole" | undefined;
};

export type PrepareLeaf = (leaf: LeafExtents, signal: AbortSignal) => Promise<LeafJob>;

export function createPrepareLeaf(o: {
  readonly repository: Repository;
  readonly session: Session;
  readonly previous: DiskRecord | undefined;
  readonly sampleShare: number;
  readonly logger: Logger;
}): PrepareLeaf {
  const { repository, previous, logger } = o;
  const condemned = o.session.condemned.packs;
  const leafStore = createLeafStore(repository);

  const damaged = o.session.damage.places;

  /** Undefined also for a leaf that is lost, or about to lose packs which it needs: its range is read. */
  function previousRef(index: number): LeafRef | "hole" | undefined {
    if (previous === undefined || index >= previous.leaves.count) return undefined;
    const ref = previous.leaves.get(index);
    if (ref === undefined || ref === "hole") return ref;
    const isLost = [ref.offset, ref.offset + ref.summaryStored].some((offset) =>
      damaged.has(ref.packId, offset),
    );
    if (isLost) return undefined;
    if (condemned.size === 0) return ref;
    const isDoomed = [ref, ...ref.packs].some(({ packId }) => condemned.has(toHex(packId)));
    return isDoomed ? undefined : ref;
  }

  /** Undefined when there is none, or none that can be read: then nothing can be taken over from it. */
  async function loadPrevious(index: number, signal: AbortSignal): Promise<LoadedLeaf | undefined> {
    const ref = previousRef(index);
    if (previous === undefined || ref === undefined || ref === "hole") return undefined;
    try {
      return await leafStore.read(ref, { index, ...leafRange(previous, index) }, { signal });
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      logger.warn("previous leaf unreadable", { index, reason: error.message });
      return undefined;
    }
  }

  return async (leaf, signal) => {
    const { states, index, offset, lengthBytes } = leaf;
    const ref = previousRef(index);
    const suspect = hasDamage(ref, damaged) ? await loadPrevious(index, signal) : undefined;
    if (suspect !== undefined) readDamaged(leaf, suspect.leaf, damaged);
    const hasSameRange =
      previous !== undefined &&
      ref !== undefined &&
      leafRange(previous, index).lengthBytes === lengthBytes;
    const samples = throwSamples(leaf, o.sampleShare, repository.random);
    const settled =
      states.every((state) => state === blockStates.zero) ||
      (ref === "hole" && !states.includes(blockStates.data))
        ? "hole"
        : hasSameRange && states.every((state) => state === blockStates.unchanged)
          ? ref
          : undefined;
    const common = { index, offset, lengthBytes, settled };
    if (settled !== undefined && samples === undefined) {
      return { ...common, reads: [], checks: [], previous: undefined };
    }
    const loaded = suspect ?? (await loadPrevious(index, signal));
    if (loaded === undefined && ref !== "hole" && states.includes(blockStates.unchanged)) {
      const all = Uint8Array.from(states, (state) =>
        state === blockStates.unchanged ? blockStates.data : state,
      );
      const reads = [...runsOf({ ...leaf, states: all }, blockStates.data)];
      const checks = samples ? planChecks({ ...leaf, states: all }, samples, undefined, []) : [];
      return { ...common, settled: undefined, reads, checks, previous: undefined };
    }
    const kept =
      loaded === undefined ? [] : keepEntries(leaf, loaded.leaf, repository.settings.chunkBytesMin);
    const checks = samples ? planChecks(leaf, samples, loaded?.leaf, kept) : [];
    return {
      ...common,
      reads: settled === undefined ? [...runsOf(leaf, blockStates.data)] : [],
      checks,
      previous:
        loaded === undefined || settled !== undefined
          ? undefined
          : { summary: loaded.summary, entries: loaded.entries, kept },
    };
  };
}

function hasDamage(ref: LeafRef | "hole" | undefined, damaged: DamagedPlaces): boolean {
  if (ref === undefined || ref === "hole" || damaged.packs.size === 0) return false;
  return ref.packs.some(({ packId }) => damaged.packs.has(toHex(packId)));
}

/** What did not change but is lost is read again, as if it had. */
function readDamaged({ states }: LeafExtents, previous: Leaf, damaged: DamagedPlaces): void {
  for (const { offset, length, pack, packOffset } of leafEntries(previous)) {
    if (!damaged.has(pack.packId, packOffset)) continue;
    const last = Math.min(Math.ceil((offset + length) / blockBytes), states.length);
    for (let block = Math.floor(offset / blockBytes); block < last; block += 1) {
      if (states[block] === blockStates.unchanged) states[block] = blockStates.data;
    }
  }
}

/** Damaged, gone, or sealed with a key that was not opened, as against a store that doesn't answer now. */
export function isUnreadable(error: unknown): error is Failure {
  return (
    isFailure(error, "object.corrupt") ||
    isFailure(error, "object.not-found") ||
    isFailure(error, "repository.epoch-unknown")
  );
}
