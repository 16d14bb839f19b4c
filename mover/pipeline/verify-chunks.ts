import type { Failure } from "@holdfast/shared/domain/failure";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { LeafEntry } from "@holdfast/shared/repository/extent-map/leaf";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Relocations } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { ChunkOpeners } from "./chunk-openers.ts";
import { createFingerprintSet, type Fingerprint, fingerprint } from "./fingerprint-set.ts";
import { createSlots } from "./limits.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { createChunkRescue } from "./rescue-chunks.ts";
import type { PackRange } from "./restore-plan.ts";

/**
 * Checks chunks as a restore would read them, each once however many points need it, and remembers which were bad.
 */
export type ChunkChecks = {
  /** It was not met yet, and the sample takes it. */
  readonly isDue: (entry: LeafEntry) => boolean;
  /** Reads what of the range is not checked yet; resolves, when it is known which of its chunks are bad, to how many have damage at their place. */
  readonly check: (range: PackRange) => Promise<number>;
  /** No place has it. */
  readonly isBad: (entry: LeafEntry) => boolean;
  /** What was wrong with the first bad chunk of a pack. */
  readonly reasonOf: (packId: Uint8Array) => string | undefined;
  /** Damage at its own place, whether another one has the same bytes or not; pack ids in hexadecimal, `all` where the pack is missing. */
  readonly damaged: () => ReadonlyMap<string, ReadonlySet<number> | "all">;
  readonly counts: () => ChunkCounts;
};

/** Bytes: read from storage, and after decrypting and inflating. */
export type ChunkCounts = {
  readonly chunksChecked: number;
  readonly chunksBad: number;
  /** Damaged or missing at their place, and read from where a relocation says. */
  readonly chunksElsewhere: number;
  readonly bytesRead: number;
  readonly bytesChecked: number;
};

/** Ranged reads in flight: at most 8 MiB each, also inflated. */
const rangesInFlight = 8;
/** About 1 TiB of stored chunks in 200 MiB; beyond that a chunk is read again for each leaf that has it, unless its pack was read whole. */
const rememberedMax = 12_000_000;
/** A sample takes neighbours together, so that few and long reads do. */
const sampleUnitsPerPack = 32;

type Chunk = PackRange["chunks"][number];

export function createChunkChecks(o: {
  readonly repository: Repository;
  readonly openers: ChunkOpeners;
  readonly relocations: Relocations;
  /** Above 0; 1 takes all. */
  readonly share: number;
  /** Records that need not be read: their pack was read whole not long ago. */
  readonly isTrustedAt: (place: {
    readonly packId: Uint8Array;
    readonly offset: number;
  }) => boolean;
  /** Its pack was read whole in this run, and all of it was right. */
  readonly wasRead: (packId: Uint8Array) => boolean;
  /** Bytes of this object were wrong once and right when they were read again. */
  readonly onUnsteady: (object: string, failure: Failure) => void;
  readonly signal: AbortSignal;
}): ChunkChecks {
  const { repository, signal } = o;
  const slots = createSlots(rangesInFlight);
  const met = createFingerprintSet(rememberedMax);
  const bad = createFingerprintSet(Number.POSITIVE_INFINITY);
  const damaged = new Map<string, Set<number> | "all">();
  const reasons = new Map<string, string>();
  const rescue = createChunkRescue(o);
  const isSampled = createSampler(repository, o.share);
  let chunksChecked = 0;
  let chunksBad = 0;
  let chunksElsewhere = 0;
  let bytesRead = 0;
  let bytesChecked = 0;

  function markOf(range: PackRange, chunk: Chunk): Fingerprint {
    return fingerprint({ ...chunk, packId: range.packId, epoch: range.epoch });
  }

  /** A pack that is gone with all that was needed of it elsewhere was compacted: that is no damage. */
  function blame({ packId }: PackRange, offset: number, failure: Failure, isLost: boolean): void {
    const key = toHex(packId);
    const known = damaged.get(key);
    if (isFailure(failure, "object.not-found")) {
      if (!isLost) return;
      damaged.set(key, "all");
    } else if (known === undefined) damaged.set(key, new Set([offset]));
    else if (known !== "all") known.add(offset);
    if (!reasons.has(key)) reasons.set(key, failure.message);
  }

  async function open(range: PackRange): Promise<void> {
    const bytes = await repository.store.getRange(packName(range.packId), range, { signal });
    bytesRead += bytes.length;
    const opened = await o.openers.open({ ...range, bytes });
    bytesChecked += opened.bytes.length;
    // Frees the memory now: left to the garbage collector, opened data would pile up.
    if (opened.bytes.buffer instanceof ArrayBuffer) opened.bytes.buffer.transfer(0);
  }

  /** Whether the chunk is where a relocation says, and was read there or need not be. */
  async function isCoveredElsewhere(range: PackRange, chunk: Chunk): Promise<boolean> {
    const { id, length } = chunk;
    for (const at of await o.relocations.find(range.packId, chunk.offset, { signal })) {
      const mark = fingerprint({ ...at, id, length });
      if (met.has(mark) && !bad.has(mark)) return true;
      if (o.isTrustedAt(at)) return true;
    }
    return false;
  }

  /** Of a pack that is gone. */
  async function openMoved(range: PackRange, reason: Failure): Promise<number> {
    const chunks: Chunk[] = [];
    for (const chunk of range.chunks) {
      if (await isCoveredElsewhere(range, chunk)) chunksElsewhere += 1;
      else chunks.push(chunk);
    }
    return chunks.length === 0 ? 0 : await openSingly({ ...range, chunks }, reason);
  }

  /** A range that does not open is read again chunk by chunk: exactly the bad ones are named. */
  async function openSingly(range: PackRange, reason: Failure): Promise<number> {
    const rescued = await rescue(range, reason, { signal });
    bytesRead += rescued.bytesRead;
    chunksChecked += range.chunks.length;
    for (const [position, chunk] of range.chunks.entries()) {
      const failure = rescued.damaged.get(position);
      const isLost = rescued.lost.has(position);
      if (failure !== undefined) blame(range, chunk.offset, failure, isLost);
      if (isLost) {
        bad.add(markOf(range, chunk));
        chunksBad += 1;
      } else {
        bytesChecked += chunk.length;
        if (failure !== undefined) chunksElsewhere += 1;
      }
    }
    if (rescued.damaged.size === 0) o.onUnsteady(packName(range.packId), reason);
    return rescued.damaged.size;
  }

  return {
    isDue: (entry) => {
      const { packId } = entry.pack;
      if (!isSampled(entry) || o.isTrustedAt({ packId, offset: entry.packOffset })) return false;
      if (met.has(markOfEntry(entry))) return false;
      // What an entry says of a pack that was read is compared with what the pack says, as long as that is remembered.
      return !met.isFull() || !o.wasRead(packId);
    },
    isBad: (entry) => bad.has(markOfEntry(entry)),
    reasonOf: (packId) => reasons.get(toHex(packId)),
    damaged: () => damaged,
    counts: () => ({ chunksChecked, chunksBad, chunksElsewhere, bytesRead, bytesChecked }),
    check: async (range) => {
      const chunks = range.chunks.filter((chunk) => met.add(markOf(range, chunk)));
      if (chunks.length === 0) return 0;
      await slots.take(signal);
      try {
        await open({ ...range, chunks });
        chunksChecked += chunks.length;
        return 0;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        const read = isFailure(error, "object.not-found") ? openMoved : openSingly;
        return await read({ ...range, chunks }, error);
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
    // The first half of a pack's id is its session's.
    const start = Buffer.from(pack.packId).readUInt32LE(8) ^ seed;
    let mixed = start ^ Math.imul(Math.floor(packOffset / unitBytes) + 1, 0x9e3779b1);
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32 < share;
  };
}
