import type { Failure } from "@holdfast/shared/domain/failure";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { LeafEntry } from "@holdfast/shared/repository/extent-map/leaf";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkOpeners } from "./chunk-openers.ts";
import { createFingerprintSet, type Fingerprint, fingerprint } from "./fingerprint-set.ts";
import { createSlots } from "./limits.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import type { PackRange } from "./restore-plan.ts";

/**
 * Checks chunks as a restore would read them, each once however many points need it, and remembers which were bad.
 */
export type ChunkChecks = {
  /** It was not met yet, and the sample takes it. */
  readonly isDue: (entry: LeafEntry) => boolean;
  /** Reads what of the range is not checked yet; resolves when it is known which of its chunks are bad. */
  readonly check: (range: PackRange) => Promise<void>;
  readonly isBad: (entry: LeafEntry) => boolean;
  readonly counts: () => ChunkCounts;
};

/** Bytes: read from storage, and after decrypting and inflating. */
export type ChunkCounts = {
  readonly chunksChecked: number;
  readonly chunksBad: number;
  readonly bytesRead: number;
  readonly bytesChecked: number;
};

/** Ranged reads in flight: at most 8 MiB each, also inflated. */
const rangesInFlight = 8;
/** About 1 TiB of stored chunks in 200 MiB; chunks beyond that are read once for each leaf that has them. */
const rememberedMax = 12_000_000;
/** A sample takes neighbours together, so that few and long reads do. */
const sampleUnitsPerPack = 32;

type Chunk = PackRange["chunks"][number];

export function createChunkChecks(o: {
  readonly repository: Repository;
  readonly openers: ChunkOpeners;
  /** Above 0; 1 takes all. */
  readonly share: number;
  readonly onBadObject: (object: string, failure: Failure) => void;
  /** Bytes of this object were wrong once and right when they were read again. */
  readonly onUnsteady: (object: string, failure: Failure) => void;
  readonly signal: AbortSignal;
}): ChunkChecks {
  const { repository, signal } = o;
  const slots = createSlots(rangesInFlight);
  const met = createFingerprintSet(rememberedMax);
  const bad = createFingerprintSet(Number.POSITIVE_INFINITY);
  const missingPacks = new Set<string>();
  const isSampled = createSampler(repository, o.share);
  let chunksChecked = 0;
  let chunksBad = 0;
  let bytesRead = 0;
  let bytesChecked = 0;

  function markOf(range: PackRange, chunk: Chunk): Fingerprint {
    return fingerprint({ ...chunk, packId: range.packId, epoch: range.epoch });
  }

  function blame(range: PackRange, chunk: Chunk, failure: Failure): void {
    bad.add(markOf(range, chunk));
    chunksBad += 1;
    o.onBadObject(packName(range.packId), failure);
  }

  async function open(range: PackRange): Promise<void> {
    const bytes = await repository.store.getRange(packName(range.packId), range, { signal });
    bytesRead += bytes.length;
    const opened = await o.openers.open({ ...range, bytes });
    bytesChecked += opened.bytes.length;
    chunksChecked += range.chunks.length;
    // Frees the memory now: left to the garbage collector, opened data would pile up.
    if (opened.bytes.buffer instanceof ArrayBuffer) opened.bytes.buffer.transfer(0);
  }

  /** A range that does not open is read again chunk by chunk: exactly the bad ones are named. */
  async function openSingly(range: PackRange, reason: Failure): Promise<void> {
    const name = packName(range.packId);
    if (isFailure(reason, "object.not-found")) missingPacks.add(name);
    const badBefore = chunksBad;
    for (const chunk of range.chunks) {
      try {
        if (missingPacks.has(name)) throw reason;
        const { offset, storedLength } = chunk;
        await open({ ...range, offset, length: storedLength, chunks: [chunk] });
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        chunksChecked += 1;
        blame(range, chunk, error);
      }
    }
    if (chunksBad === badBefore) o.onUnsteady(name, reason);
  }

  return {
    isDue: (entry) => isSampled(entry) && !met.has(markOfEntry(entry)),
    isBad: (entry) => bad.has(markOfEntry(entry)),
    counts: () => ({ chunksChecked, chunksBad, bytesRead, bytesChecked }),
    check: async (range) => {
      const chunks = range.chunks.filter((chunk) => met.add(markOf(range, chunk)));
      if (chunks.length === 0) return;
      await slots.take(signal);
      try {
        await open({ ...range, chunks });
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        await openSingly({ ...range, chunks }, error);
      } finally {
        slots.give();
      }
    },
  };
}

function markOfEntry(entry: LeafEntry): Fingerprint {
  return fingerprint({ ...entry, ...entry.pack, offset: entry.packOffset });
}

/** The same answer for one place during one run, another one in the next run. */
function createSampler(repository: Repository, share: number): (entry: LeafEntry) => boolean {
  if (share >= 1) return () => true;
  const seed = Buffer.from(repository.random(4)).readUInt32LE(0);
  const unitBytes = Math.max(1, Math.floor(repository.settings.packBytes / sampleUnitsPerPack));
  return ({ pack, packOffset }) => {
    const start = Buffer.from(pack.packId).readUInt32LE(0) ^ seed;
    let mixed = start ^ Math.imul(Math.floor(packOffset / unitBytes) + 1, 0x9e3779b1);
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32 < share;
  };
}
