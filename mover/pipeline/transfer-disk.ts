import { strict as assert } from "node:assert";
import type { Extent } from "@holdfast/shared/domain/extent";
import { asFailure, Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { Logger } from "@holdfast/shared/ports/logger";
import { createDigests } from "@holdfast/shared/repository/extent-map/digest";
import {
  type DiskRecord,
  type DiskStats,
  emptyLeafTable,
} from "@holdfast/shared/repository/extent-map/disk-record";
import { diskDigest } from "@holdfast/shared/repository/extent-map/disk-records";
import type { LeafTable } from "@holdfast/shared/repository/extent-map/leaf-table";
import type { ChunkIndex } from "@holdfast/shared/repository/index/chunk-index";
import type { IndexedPack } from "@holdfast/shared/repository/index/index-segment";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { checkForeignPacks } from "./foreign-packs.ts";
import { type LeafExecutor, startInPlace, startWorker } from "./leaf-executor.ts";
import { createLeafFeeder } from "./leaf-feeder.ts";
import type { EngineSetup, FromEngine } from "./leaf-messages.ts";
import { splitIntoLeaves } from "./leaf-plan.ts";
import { type FinishedLeaf, writeLeaves } from "./leaf-writer.ts";
import { createBell } from "./limits.ts";
import { createPackUploads } from "./pack-uploads.ts";
import { createPrepareLeaf, isUnreadable, type LeafJob } from "./prepare-leaf.ts";
import {
  createCheckpointWriter,
  distrust,
  resumeTransfer,
  type TransferMode,
} from "./transfer-checkpoint.ts";
import { workerShares } from "./worker-shares.ts";

/**
 * Reads one disk into the repository. Leaf by leaf: the source's extents and the previous point decide what is read; workers cut,
 * hash, look up, compress and seal; packs are uploaded, then the leaves, then the index, then the disk's record.
 *
 * What always holds: memory does not grow with the disk's data; a checkpoint names only what is stored; the record is written when every leaf is
 * stored and never otherwise; after a failure nothing refers to what was uploaded but checkpoints and the index.
 */
export type TransferOptions = {
  readonly repository: Repository;
  /** Open; what it forbids is not used, and what is made says that it is of this session. */
  readonly session: Session;
  readonly reader: DiskReader;
  readonly diskKey: string;
  /** The same disk's record in the previous point: what the source calls unchanged is taken from it. */
  readonly previous?: string | undefined;
  /**
   * `incremental`: what the source calls unchanged is believed, but for samples. `full`: it is asked for all its data; the previous record only
   * saves storing it again. `all`: everything is read, also what the source calls zero. After `changes.unknown` the next mode is due.
   * Default: incremental if there is a previous record.
   */
  readonly mode?: TransferMode;
  /**
   * What `saveCheckpoint` was given last, if the transfer was interrupted while this very snapshot was read. Give it in every mode: one
   * that believes more than an earlier attempt had to fails with `changes.unknown` at once.
   */
  readonly checkpoint?: unknown;
  /** Share of the bytes called unchanged or zero that is read and compared; 0 to 1. */
  readonly sampleShare: number;
  readonly saveCheckpoint: (checkpoint: Record<string, unknown>) => Promise<void>;
  readonly onProgress: (progress: TransferProgress) => void;
  readonly signal: AbortSignal;
  /** Worker threads at most; 0 works in this thread. Default 6. Transfers at once share as many as there are cores; each has one at least. */
  readonly workers?: number;
  /** The repository's chunk index, shared by the transfers of a mover; without it only the previous point's chunks are found. */
  readonly index?: ChunkIndex | undefined;
  /** Hears of each index segment that is in the store. */
  readonly onIndexSegment?: ((name: string, packs: readonly IndexedPack[]) => void) | undefined;
  /** Called again and again while chunks are looked up. */
  readonly prefetch?: (() => void) | undefined;
  readonly logger: Logger;
  /** Open every sealed pack again before it is uploaded; default true. */
  readonly checkSealed?: boolean;
  /** A checkpoint is saved after this many bytes, but not within two seconds of the last, or after 30 seconds. Default 256 MiB. */
  readonly checkpointBytes?: number;
};

export type TransferProgress = DiskStats & {
  readonly bytesDone: number;
  readonly bytesTotal: number;
};

export type TransferResult = { readonly recordKey: string; readonly stats: TransferProgress };

const workersMax = 6;
const preparedMax = 8;
const waitingLeavesMax = 64;
const checkpointBytesDefault = 256 * 1024 * 1024;
const checkpointIntervalMs = 30_000;
const checkpointPauseMs = 2_000;
const indexChunksMin = 32_768;

/**
 * Fails with `changes.unknown` when a sample shows that the source's claims can't be believed, `cancelled` or the signal's own Failure when it is
 * stopped, and with what reader and store fail with.
 */
export async function transferDisk(o: TransferOptions): Promise<TransferResult> {
  const stop = new AbortController();
  const signal = AbortSignal.any([o.signal, stop.signal]);
  // Given back when the workers have ended.
  using share = workerShares.take(o.workers ?? workersMax);
  const transfer = await openTransfer(o, share.workers, signal).catch((error: unknown) => {
    throw o.signal.aborted ? asFailure(o.signal.reason, "cancelled", "transfer stopped") : error;
  });
  let firstFailure: unknown;
  const fail = (error: unknown): void => {
    firstFailure ??= error;
    stop.abort(error);
  };
  const executors = startExecutors(o, transfer, fail, signal);
  transfer.start(executors);
  try {
    const nextJob = transfer.jobs(signal);
    await Promise.all(
      executors.map((executor) =>
        feedExecutor({ transfer, executor, nextJob, signal }).catch((error: unknown) => {
          fail(error);
          throw error;
        }),
      ),
    );
    return await transfer.finish(signal);
  } catch (error) {
    fail(error);
    if (o.signal.aborted) {
      throw asFailure(o.signal.reason, "cancelled", `transfer of disk ${o.diskKey} stopped`);
    }
    if (isFailure(firstFailure, "index.stale")) {
      // The leaves that a checkpoint names may need packs that are gone.
      await o.saveCheckpoint({ v: 1 });
    }
    if (isFailure(firstFailure, "changes.unknown")) {
      // What an incremental finished on false claims must not be gone on with, should this mover die now.
      await o.saveCheckpoint(distrust(transfer.mode, firstFailure.message));
    }
    throw firstFailure;
  } finally {
    stop.abort();
    await Promise.all(executors.map((executor) => executor.stop()));
  }
}

type NextJob = () => Promise<LeafJob | undefined>;

async function feedExecutor(o: {
  readonly transfer: Transfer;
  readonly executor: LeafExecutor;
  readonly nextJob: NextJob;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { transfer, executor, signal } = o;
  for (;;) {
    await transfer.room(signal);
    const job = await o.nextJob();
    if (job === undefined) return;
    const { index, offset, lengthBytes, previous } = job;
    const hasLeaf = job.settled === undefined;
    if (hasLeaf) executor.post({ type: "leaf", index, offset, lengthBytes, previous });
    await transfer.feeder.feed(job, executor, signal);
    if (hasLeaf) executor.post({ type: "leaf-end" });
    transfer.fed(job);
  }
}

function startExecutors(
  o: TransferOptions,
  transfer: Transfer,
  fail: (error: unknown) => void,
  signal: AbortSignal,
): readonly LeafExecutor[] {
  const { secrets, settings, random } = o.repository;
  const checkSealed = o.checkSealed ?? true;
  const { packs, compacting } = o.session.condemned;
  const setup: EngineSetup = {
    secrets,
    settings,
    index: o.index?.shared,
    sessionId: Buffer.from(o.session.sessionId, "hex"),
    condemned: packs.union(compacting),
    damaged: o.session.damage.places.packs,
    checkSealed,
  };
  return Array.from({ length: transfer.executors }, () => {
    const ears = {
      onMessage: (message: FromEngine) => transfer.hear(message, executor, signal).catch(fail),
      onFailure: fail,
    };
    const executor: LeafExecutor =
      o.workers === 0 ? startInPlace({ ...setup, random }, ears) : startWorker(setup, ears);
    return executor;
  });
}

type Transfer = Awaited<ReturnType<typeof openTransfer>>;

async function openTransfer(o: TransferOptions, executors: number, signal: AbortSignal) {
  signal.throwIfAborted();
  const { repository, reader, logger } = o;
  const { sizeBytes } = reader;
  const { leafBytes } = repository.settings;
  const table = emptyLeafTable(sizeBytes, leafBytes);
  const mode = o.mode ?? (o.previous === undefined ? "full" : "incremental");
  const identity = { mode, diskKey: o.diskKey, sizeBytes, previous: o.previous };
  const previous = await readPrevious(o, signal);
  const resumed = await resume(o, identity, table, signal);
  const uploads = createPackUploads(o);
  const feeder = createLeafFeeder(reader, executors, uploads.room);
  const checkpoints = createCheckpointWriter(repository, o.session, identity, table, resumed);
  const prepare = createPrepareLeaf({ ...o, previous });
  const bell = createBell();
  const waiting = new Map<number, FinishedLeaf & { readonly ownPacks: readonly string[] }>();
  let flushesAwaited = 0;
  let finished: number[] = [];
  let bytesDone = 0;
  let bytesStoredOtherwise = 0;
  let bytesAtCheckpoint = 0;
  let checkpointAt = repository.clock.now();
  let writing = Promise.resolve();
  let isFinishing = false;
  let executorsAll: readonly LeafExecutor[] = [];

  /** Leaves and checkpoints are written one after the other. */
  function inTurn(work: () => Promise<void>): Promise<void> {
    writing = writing.then(work);
    return writing;
  }

  function stats(): DiskStats {
    return {
      bytesRead: (resumed?.stats.bytesRead ?? 0) + feeder.bytesRead(),
      bytesNew: (resumed?.stats.bytesNew ?? 0) + uploads.bytesNew(),
      bytesStored: (resumed?.stats.bytesStored ?? 0) + uploads.bytesStored() + bytesStoredOtherwise,
    };
  }
  const progress = (): TransferProgress => ({ ...stats(), bytesDone, bytesTotal: sizeBytes });

  function advance(bytes: number): void {
    bytesDone += bytes;
    o.onProgress(progress());
  }

  function settle(index: number, ref: Parameters<LeafTable["set"]>[1]): void {
    table.set(index, ref);
    finished.push(index);
  }

  const readyLeaves = (): readonly FinishedLeaf[] =>
    [...waiting.values()].filter((leaf) => leaf.ownPacks.every(uploads.isUploaded));

  /** Stores the leaves whose packs are all there. */
  async function writeWaiting(writeSignal: AbortSignal): Promise<void> {
    const ready = readyLeaves();
    if (ready.length === 0) return;
    for (const leaf of ready) waiting.delete(leaf.index);
    const written = await writeLeaves(repository, o.session, ready, writeSignal);
    bytesStoredOtherwise += written.bytesStored;
    for (const { index, ref } of written.refs) settle(index, ref);
    bell.ring();
  }

  async function checkpoint(checkpointSignal: AbortSignal): Promise<void> {
    await writeWaiting(checkpointSignal);
    await uploads.writeIndex(indexChunksMin, checkpointSignal);
    const fresh = finished;
    finished = [];
    await o.saveCheckpoint(await checkpoints.write(fresh, stats(), checkpointSignal));
  }

  /** Looks what there is to write now; called whenever a leaf or pack arrives. */
  function consider(considerSignal: AbortSignal): Promise<void> {
    if (isFinishing) return Promise.resolve();
    const now = repository.clock.now();
    const elapsed = now - checkpointAt;
    const bytes = bytesDone - bytesAtCheckpoint;
    const bytesMax = o.checkpointBytes ?? checkpointBytesDefault;
    const isDue =
      (bytes >= bytesMax && (elapsed >= checkpointPauseMs || o.checkpointBytes !== undefined)) ||
      elapsed >= checkpointIntervalMs;
    if (isDue) {
      checkpointAt = now;
      bytesAtCheckpoint = bytesDone;
      return inTurn(() => checkpoint(considerSignal));
    }
    if (waiting.size <= waitingLeavesMax) return Promise.resolve();
    if (readyLeaves().length > 0) return inTurn(() => writeWaiting(considerSignal));
    // All wait for packs that are still open. Packs on their way will come back here by themselves.
    if (flushesAwaited === 0 && uploads.isIdle()) flush();
    return Promise.resolve();
  }

  function flush(): void {
    flushesAwaited += executorsAll.length;
    for (const executor of executorsAll) executor.post({ type: "flush" });
  }

  async function hear(
    message: FromEngine,
    from: LeafExecutor,
    hearSignal: AbortSignal,
  ): Promise<void> {
    if (hearSignal.aborted) return;
    switch (message.type) {
      case "buffer":
        feeder.giveBack(message.buffer);
        o.prefetch?.();
        if (message.dataBytes > 0) advance(message.dataBytes);
        return;
      case "pack":
        await uploads.upload(message, from, hearSignal);
        return consider(hearSignal);
      case "leaf": {
        const { index, stored, ownPacks } = message;
        if (stored === undefined) settle(index, "hole");
        else waiting.set(index, { index, ...stored, ownPacks });
        return consider(hearSignal);
      }
      case "flushed":
        flushesAwaited -= 1;
        bell.ring();
        return consider(hearSignal);
      case "failed":
        throw new Failure(message.failure.code, { message: message.failure.message });
      default:
        return message satisfies never;
    }
  }

  function jobs(jobsSignal: AbortSignal): NextJob {
    const extents = mode === "all" ? allData(sizeBytes) : reader.extents({ signal: jobsSignal });
    const leaves = splitIntoLeaves(extents, {
      sizeBytes,
      leafBytes,
      unchangedBytes: previous?.sizeBytes ?? 0,
    });
    const ahead: Promise<LeafJob>[] = [];
    let ended = false;
    let turn: Promise<unknown> = Promise.resolve();
    async function take(): Promise<LeafJob | undefined> {
      while (!ended && ahead.length < preparedMax) {
        const next = await leaves.next();
        if (next.done === true) {
          ended = true;
          break;
        }
        if (table.get(next.value.index) !== undefined) {
          advance(next.value.lengthBytes);
          continue;
        }
        const job = prepare(next.value, jobsSignal);
        // Awaited in its turn.
        job.catch(() => undefined);
        ahead.push(job);
      }
      return ahead.shift();
    }
    return () => {
      const mine = turn.then(take);
      turn = mine.catch(() => undefined);
      return mine;
    };
  }

  async function finish(finishSignal: AbortSignal): Promise<TransferResult> {
    isFinishing = true;
    flush();
    await bell.until(() => flushesAwaited === 0, finishSignal);
    await uploads.idle(finishSignal);
    await inTurn(() => writeWaiting(finishSignal));
    await uploads.writeIndex(0, finishSignal);
    assert(waiting.size === 0, "leaves are left whose packs were not uploaded");
    const unsigned = { diskKey: o.diskKey, sizeBytes, leafBytes, leaves: table, stats: stats() };
    await checkForeignPacks(o, table, previous, finishSignal);
    const digest = diskDigest(createDigests(repository.secrets), unsigned, `disk ${o.diskKey}`);
    const recordKey = await repository.writeDiskRecord(
      o.session,
      { ...unsigned, digest },
      { signal: finishSignal },
    );
    logger.info("disk transferred", { diskKey: o.diskKey, recordKey, ...progress() });
    return { recordKey, stats: progress() };
  }

  return {
    executors,
    start: (all: readonly LeafExecutor[]) => {
      executorsAll = all;
    },
    feeder,
    hear,
    mode,
    jobs,
    finish,
    room: async (roomSignal: AbortSignal) => {
      await uploads.room(roomSignal);
      await bell.until(() => waiting.size <= 2 * waitingLeavesMax, roomSignal);
    },
    fed: (job: LeafJob) => {
      if (job.settled !== undefined) settle(job.index, job.settled);
      const read = job.reads.reduce((sum, { length }) => sum + length, 0);
      advance(job.lengthBytes - read);
    },
  };
}

async function* allData(sizeBytes: number): AsyncGenerator<Extent> {
  if (sizeBytes > 0) yield { offset: 0, length: sizeBytes, kind: "data" };
}

async function readPrevious(
  o: TransferOptions,
  signal: AbortSignal,
): Promise<DiskRecord | undefined> {
  if (o.previous === undefined || o.session.condemned.objects.has(o.previous)) return undefined;
  try {
    return await o.repository.readDiskRecord(o.previous, { signal });
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    o.logger.warn("previous disk record unreadable; the disk is read in full", {
      diskKey: o.diskKey,
      recordKey: o.previous,
      reason: error.message,
    });
    return undefined;
  }
}

async function resume(
  o: TransferOptions,
  identity: Parameters<typeof resumeTransfer>[2],
  table: LeafTable,
  signal: AbortSignal,
): ReturnType<typeof resumeTransfer> {
  if (o.checkpoint === undefined) return undefined;
  try {
    const { repository, session } = o;
    return await resumeTransfer(repository, session, identity, table, o.checkpoint, signal);
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    o.logger.warn("transfer checkpoint unreadable; the disk is read from its beginning", {
      diskKey: o.diskKey,
      reason: error.message,
    });
    return undefined;
  }
}
