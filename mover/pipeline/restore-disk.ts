import { availableParallelism } from "node:os";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { DiskWriter } from "@holdfast/shared/ports/disk";
import type { Logger } from "@holdfast/shared/ports/logger";
import { createDigests, type Placed } from "@holdfast/shared/repository/extent-map/digest";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import type { Leaf } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import type { LeafRef } from "@holdfast/shared/repository/extent-map/leaf-table";
import { sameBytes, toHex } from "@holdfast/shared/repository/format/bytes";
import { packName } from "@holdfast/shared/repository/pack/pack";
import { createRelocations } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import { type ChunkOpeners, createChunkOpeners, type Opened } from "./chunk-openers.ts";
import type { ByteRun } from "./leaf-plan.ts";
import { createSlots } from "./limits.ts";
import { isUnreadable } from "./prepare-leaf.ts";
import { createChunkRescue } from "./rescue-chunks.ts";
import { holesOf, type PackRange, planRanges } from "./restore-plan.ts";

/**
 * Writes one disk of a recovery point to a target. Needs the store and the keys, no index and no earlier point.
 *
 * What always holds: only bytes that were authenticated and have their chunk's id reach the target; holes are written as
 * zeros unless the target begins as zeros; at the end a digest over what was written where must be the one that was made when
 * the disk was read. A chunk or leaf that is damaged is taken from where relocations say. One that is lost ends the restore; with
 * `despiteDamage` its ranges become zeros, exactly these, and are named.
 */
export type RestoreOptions = {
  readonly repository: Repository;
  readonly recordKey: string;
  /** The disk's digest as the point's root has it, in hexadecimal; another record is then refused. */
  readonly digest?: string;
  readonly writer: DiskWriter;
  /** Restores all that can be, and says what could not. */
  readonly despiteDamage?: boolean;
  readonly onProgress: (progress: RestoreProgress) => void;
  readonly signal: AbortSignal;
  /** Worker threads; 0 works in this thread. Default: one a core, at most 8. */
  readonly workers?: number;
  readonly logger: Logger;
};

/** Bytes. `bytesRead` from the repository's storage. */
export type RestoreProgress = {
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly bytesZeroed: number;
};

export type RestoreResult = RestoreProgress & {
  readonly digest: string;
  /** Zeros instead of data, in order; none unless `despiteDamage`. */
  readonly lost: readonly ByteRun[];
};

const workersMax = 8;
/** Leaves worked on at once, and ranged reads in flight: at most 8 MiB each, also inflated. */
const leavesInFlight = 6;
const rangesInFlight = 8;
/** What `planRanges` lets one range inflate to. */
const rangeRawBytesMax = 8 * 1024 * 1024;

/**
 * Fails with `target.refused` when the target is too small, `object.corrupt` or `object.not-found` for damage in the repository, `verification.failed`
 * when what was written is not what was backed up, `cancelled` when stopped.
 */
export async function restoreDisk(o: RestoreOptions): Promise<RestoreResult> {
  const stop = new AbortController();
  const signal = AbortSignal.any([o.signal, stop.signal]);
  const { repository, writer } = o;
  const workers = o.workers ?? Math.min(availableParallelism(), workersMax);
  let openers: ChunkOpeners | undefined;
  try {
    signal.throwIfAborted();
    const record = await repository.readDiskRecord(o.recordKey, { signal });
    if (o.digest !== undefined && o.digest !== toHex(record.digest)) {
      throw new Failure("verification.failed", {
        message: `${o.recordKey} is not the record that the recovery point was written with`,
      });
    }
    if (writer.sizeBytes < record.sizeBytes) {
      throw new Failure("target.refused", {
        message: `the target has ${writer.sizeBytes} bytes, the disk needs ${record.sizeBytes}`,
      });
    }
    openers = createChunkOpeners(repository.secrets, workers);
    return await restore({ ...o, record, openers, signal });
  } catch (error) {
    stop.abort(error);
    if (o.signal.aborted) throw asFailure(o.signal.reason, "cancelled", "restore stopped");
    throw error;
  } finally {
    stop.abort();
    await openers?.stop();
  }
}

type Restoring = RestoreOptions & {
  readonly record: DiskRecord;
  readonly openers: ChunkOpeners;
};

async function restore(o: Restoring): Promise<RestoreResult> {
  const { repository, record, writer, signal } = o;
  const relocations = createRelocations(repository);
  const leafStore = createLeafStore({ ...repository, relocations });
  const rescue = createChunkRescue({ ...o, relocations });
  const lost: ByteRun[] = [];
  const digests = createDigests(repository.secrets);
  const target = createTarget(writer, signal);
  const ranges = createSlots(rangesInFlight);
  // Used again and again: as many as ranges were in flight at once. A range is of one disk, each chunk in it once.
  const roomBytes = Math.min(rangeRawBytesMax, record.sizeBytes);
  const rooms: SharedArrayBuffer[] = [];
  const leafDigests: Uint8Array[] = [];
  let bytesDone = 0;
  let bytesRead = 0;
  const progress = (): RestoreProgress => ({
    bytesDone,
    bytesTotal: record.sizeBytes,
    bytesRead,
    bytesWritten: target.bytesWritten(),
    bytesZeroed: target.bytesZeroed(),
  });

  function giveUp(ranges: readonly ByteRun[], cause: Failure): void {
    if (o.despiteDamage !== true) throw lossOf(record.diskKey, ranges, cause);
    lost.push(...ranges);
    o.logger.warn("lost ranges restored as zeros", { ranges, reason: cause.message });
  }

  async function openRange(range: PackRange, into: SharedArrayBuffer): Promise<Opened> {
    try {
      const bytes = await repository.store.getRange(packName(range.packId), range, { signal });
      bytesRead += bytes.length;
      return await o.openers.open({ ...range, bytes, into });
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const rescued = await rescue(range, error, { into, signal });
      bytesRead += rescued.bytesRead;
      for (const position of rescued.lost) {
        const { length, diskOffsets } = range.chunks[position] ?? { length: 0, diskOffsets: [] };
        const ranges = diskOffsets.map((offset) => ({ offset, length }));
        giveUp(ranges, rescued.damaged.get(position) ?? error);
      }
      return rescued;
    }
  }

  /** What was really written, by the ids that the written bytes were found to have; of what is lost, by those that it had. */
  async function restoreRange(range: PackRange): Promise<readonly Placed[]> {
    await ranges.take(signal);
    try {
      const room = rooms.pop() ?? new SharedArrayBuffer(roomBytes);
      const opened = await openRange(range, room);
      const { pieces, placed } = arrange(range, opened);
      signal.throwIfAborted();
      await target.write(pieces);
      // Only here: after a failure somebody may still be writing from it.
      rooms.push(room);
      return placed;
    } finally {
      ranges.give();
    }
  }

  /** Undefined when it is lost and the restore goes on all the same. */
  async function readLeaf(ref: LeafRef, index: number): Promise<Leaf | undefined> {
    const place = leafRange(record, index);
    try {
      return (await leafStore.read(ref, { index, ...place }, { signal })).leaf;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      giveUp([{ offset: place.offset, length: place.lengthBytes }], error);
      return undefined;
    }
  }

  async function restoreLeaf(index: number): Promise<void> {
    const place = leafRange(record, index);
    const ref = record.leaves.get(index);
    const leaf = ref === undefined || ref === "hole" ? undefined : await readLeaf(ref, index);
    if (leaf === undefined) {
      await target.zero({ offset: place.offset, length: place.lengthBytes });
      leafDigests[index] =
        ref === undefined || ref === "hole" ? digests.leaf(place, []) : ref.digest;
    } else {
      const { chunkBytesMax } = repository.settings;
      const plan = planRanges(leaf, { diskOffset: place.offset, chunkBytesMax });
      const [parts] = await Promise.all([
        Promise.all(plan.map(restoreRange)),
        Promise.all(Array.from(holesOf(leaf, place.offset), (hole) => target.zero(hole))),
      ]);
      leafDigests[index] = digests.leaf(place, parts.flat());
    }
    bytesDone += place.lengthBytes;
    o.onProgress(progress());
  }

  let next = 0;
  async function work(): Promise<void> {
    while (next < record.leaves.count) {
      signal.throwIfAborted();
      const index = next;
      next += 1;
      await restoreLeaf(index);
    }
  }
  await Promise.all(Array.from({ length: leavesInFlight }, work));
  if (writer.sizeBytes > record.sizeBytes) {
    const length = writer.sizeBytes - record.sizeBytes;
    await target.zero({ offset: record.sizeBytes, length });
  }
  await writer.flush();
  const digest = digests.disk(record.sizeBytes, leafDigests);
  if (!sameBytes(digest, record.digest)) {
    throw new Failure("verification.failed", {
      message: `disk ${record.diskKey}: what was written where is not what was backed up (digest ${toHex(digest)}, expected ${toHex(record.digest)})`,
    });
  }
  o.logger.info("disk restored", { diskKey: record.diskKey, ...progress() });
  return { ...progress(), digest: toHex(digest), lost: joinRuns(lost) };
}

/** Ranges that a message names; the details have all that are known at that moment. */
const rangesNamed = 4;

function lossOf(diskKey: string, ranges: readonly ByteRun[], cause: Failure): Failure {
  const named = ranges
    .slice(0, rangesNamed)
    .map(({ offset, length }) => `${offset} to ${offset + length - 1}`);
  const more = ranges.length > rangesNamed ? ` and ${ranges.length - rangesNamed} more` : "";
  return new Failure("object.corrupt", {
    message: `disk ${diskKey}: bytes ${named.join(", ")}${more} are lost: ${cause.message}`,
    ranges,
    cause,
  });
}

/** In order, neighbours as one. */
function joinRuns(runs: readonly ByteRun[]): readonly ByteRun[] {
  const joined: { offset: number; length: number }[] = [];
  for (const { offset, length } of runs.toSorted((left, right) => left.offset - right.offset)) {
    const last = joined.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else joined.push({ offset, length });
  }
  return joined;
}

type Piece = { readonly offset: number; readonly bytes: Uint8Array };

/** Chunks that follow each other on the disk as they do in the pack become one write. */
function arrange(
  range: PackRange,
  opened: { readonly bytes: Uint8Array; readonly ids: readonly Uint8Array[] },
): { readonly pieces: readonly Piece[]; readonly placed: readonly Placed[] } {
  const placed: Placed[] = [];
  const pieces: { offset: number; from: number; length: number }[] = [];
  let from = 0;
  for (const [position, { length, diskOffsets }] of range.chunks.entries()) {
    const id = opened.ids[position] ?? new Uint8Array(0);
    for (const offset of diskOffsets) {
      placed.push({ offset, length, id });
      const last = pieces.at(-1);
      if (
        last !== undefined &&
        last.offset + last.length === offset &&
        last.from + last.length === from
      ) {
        last.length += length;
      } else {
        pieces.push({ offset, from, length });
      }
    }
    from += length;
  }
  return {
    placed,
    pieces: pieces.map((piece) => ({
      offset: piece.offset,
      bytes: opened.bytes.subarray(piece.from, piece.from + piece.length),
    })),
  };
}

function createTarget(writer: DiskWriter, signal: AbortSignal) {
  const writes = createSlots(Math.max(1, writer.writesMax));
  let bytesWritten = 0;
  let bytesZeroed = 0;

  async function writeOne(offset: number, bytes: Uint8Array): Promise<void> {
    await writes.take(signal);
    try {
      await writer.write(offset, bytes, { signal });
      bytesWritten += bytes.length;
    } finally {
      writes.give();
    }
  }

  return {
    bytesWritten: () => bytesWritten,
    bytesZeroed: () => bytesZeroed,
    write: async (pieces: readonly Piece[]): Promise<void> => {
      const parts: Promise<void>[] = [];
      for (const { offset, bytes } of pieces) {
        for (let at = 0; at < bytes.length; at += writer.writeBytesMax) {
          parts.push(writeOne(offset + at, bytes.subarray(at, at + writer.writeBytesMax)));
        }
      }
      await Promise.all(parts);
    },
    zero: async ({ offset, length }: ByteRun): Promise<void> => {
      if (writer.startsZeroed || length === 0) return;
      await writes.take(signal);
      try {
        await writer.zero(offset, length, { signal });
        bytesZeroed += length;
      } finally {
        writes.give();
      }
    },
  };
}
