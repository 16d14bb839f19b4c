import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { type Logger, silentLogger } from "@holdfast/shared/ports/logger";
import { collect } from "@holdfast/shared/repository/maintenance/collect";
import type { CollectReport } from "@holdfast/shared/repository/maintenance/collect-report";
import type { NewPoint, Repository } from "@holdfast/shared/repository/repository";
import { jobSilenceSeconds, type Session } from "@holdfast/shared/repository/session/sessions";
import { withReadSession, withSession } from "../../mover/hold-session.ts";
import type { ChunkIndexLoader, SessionIndex } from "../../mover/pipeline/chunk-index-loader.ts";
import { createMemoryWriter } from "../../mover/pipeline/memory-disk.ts";
import { restoreDisk } from "../../mover/pipeline/restore-disk.ts";
import type { TransferMode } from "../../mover/pipeline/transfer-checkpoint.ts";
import { transferDisk } from "../../mover/pipeline/transfer-disk.ts";
import { verifyRepository } from "../../mover/pipeline/verify-repository.ts";
import type { Counters } from "./counters.ts";
import { createDiskReader } from "./disks.ts";
import type { Model, ModelPoint } from "./model.ts";
import { type Monitor, Violation } from "./monitor.ts";
import type { Process } from "./process.ts";
import type { Seeded } from "./seeded.ts";

/** A process with what a mover has: the repository, and its index in memory. */
export type Mover = {
  readonly process: Process;
  /** Its clock is the same for all programs that run there. */
  readonly host: string;
  readonly repository: Repository;
  /** The same, for a collection. */
  readonly collecting: () => Repository;
  readonly indexLoader: ChunkIndexLoader;
};

/** One backup, as the catalog knows it; it outlives the movers that work on it. */
export type BackupJob = {
  readonly jobId: string;
  readonly pointId: string;
  readonly vmKey: string;
  /** Stages by several movers in one session, or one program that does it all in its own. */
  readonly isStaged: boolean;
  readonly parent: ModelPoint | undefined;
  readonly seeded: Seeded;
  attempts: number;
  /** Chosen when the job begins. */
  sessionId: string;
  /** Its first stage is known to have run. */
  hasBegun: boolean;
  checkpoint: unknown;
  recordKey: string | undefined;
  /** How often somebody claimed the stage that puts its root. */
  commits: number;
  /** Who gives up a job claims that stage, so that no one else begins it. */
  isReleased: boolean;
};

type Attempt = { readonly job: BackupJob; readonly fence: number; readonly recordKey: string };

const diskKey = "vda";
const logger: Logger = silentLogger;
const never = new AbortController().signal;

export function createJobs(o: {
  readonly model: Model;
  readonly monitor: Monitor;
  readonly counters: Counters;
}) {
  const { model, monitor, counters } = o;

  /** Whether the repository may say this of a point that is to be kept. */
  function contextOf(mover: Mover) {
    const { process, repository } = mover;
    return { repository, clock: process.clock, logger, signal: never };
  }

  async function transfer(
    mover: Mover,
    job: BackupJob,
    session: Session,
    signal: AbortSignal,
  ): Promise<string> {
    const { process, repository } = mover;
    const { parent } = job;
    const snapshot = model.snapshots.get(job.jobId);
    if (snapshot === undefined) throw new Error(`${job.jobId} has no snapshot`);
    const isUsable =
      parent !== undefined &&
      (await repository.sessions.isUsablePoint(session, parent.rootKey, { signal }));
    const previous = isUsable ? await recordOf(repository, parent.rootKey, signal) : undefined;
    const before =
      previous === undefined ? undefined : model.snapshots.get(parent?.jobId ?? "")?.bytes;
    counters.count(previous === undefined ? "way: full" : "way: incremental");
    let index: SessionIndex | undefined = await mover.indexLoader.load(session, signal);
    if (job.checkpoint !== undefined) counters.count("way: resumed from a checkpoint");
    let mode: TransferMode | undefined;
    for (;;) {
      const reader = createDiskReader({
        process,
        bytes: snapshot.bytes,
        before,
        seeded: job.seeded,
      });
      try {
        const { recordKey } = await transferDisk({
          repository,
          session,
          reader,
          diskKey,
          previous,
          ...index,
          ...(mode === undefined ? {} : { mode }),
          checkpoint: job.checkpoint,
          sampleShare: 0.05,
          checkpointBytes: 64 * 1024,
          saveCheckpoint: async (checkpoint) => {
            await process.pass("the catalog", job.seeded.between(1, 50), signal);
            job.checkpoint = checkpoint;
          },
          onProgress: () => undefined,
          signal,
          workers: 0,
          logger,
        });
        return recordKey;
      } catch (error) {
        if (isFailure(error, "changes.unknown") && mode !== "all") {
          counters.count("way: more is read than was said to have changed");
          mode = mode === undefined ? "full" : "all";
          continue;
        }
        if (!isFailure(error, "index.stale") || index === undefined) throw error;
        counters.count("way: index was stale");
        index = undefined;
      }
    }
  }

  async function commit(
    mover: Mover,
    { job, fence, recordKey }: Attempt,
    session: Session,
    signal: AbortSignal,
  ): Promise<void> {
    const { pointId, jobId, vmKey, parent } = job;
    if (job.isReleased) throw new Failure("fence.lost", { message: `${jobId} was given up` });
    job.commits += 1;
    const point: NewPoint = {
      pointId,
      vmKey,
      vmName: vmKey,
      providerId: "simulated",
      jobId,
      fence,
      takenAt: "2026-11-20T12:00:00Z",
      mode: "full",
      consistency: "crash",
      warnings: [],
      parent,
      metadata,
      disks: [{ key: diskKey, recordKey, mode: "full", reason: "" }],
    };
    try {
      const { rootKey } = await mover.repository.writePoint(session, point, { signal });
      model.confirmed.set(rootKey, { rootKey, pointId, vmKey, jobId });
      counters.count("way: committed");
      monitor.confirmed(rootKey);
    } catch (error) {
      if (isFailure(error, "session.ended")) {
        counters.count("way: commit refused");
        // Of several that tried, another may have made the point.
        if (job.commits === 1) {
          monitor.refused(session.sessionId);
          model.refused.add(session.sessionId);
        }
      }
      throw error;
    }
  }

  return {
    /** One program from the session's begin to its end. */
    standalone: async (mover: Mover, job: BackupJob): Promise<boolean> => {
      const pins = job.parent === undefined ? [] : [job.parent.rootKey];
      const fence = job.attempts;
      const held = { ...contextOf(mover), kind: "backup", holder: job.jobId, pins } as const;
      await withSession(held, async (session, signal) => {
        job.sessionId = session.sessionId;
        const recordKey = await transfer(mover, job, session, signal);
        await commit(mover, { job, fence, recordKey }, session, signal);
      });
      return true;
    },

    /** What is left to do of a job of several stages; each may be run by another mover. Answers whether that was all of it. */
    staged: async (mover: Mover, job: BackupJob): Promise<boolean> => {
      const { sessions } = mover.repository;
      const fence = job.attempts;
      const { sessionId } = job;
      if (!job.hasBegun) {
        const pins = job.parent === undefined ? [] : [job.parent.rootKey];
        const holder = job.jobId;
        const silenceSeconds = jobSilenceSeconds;
        await sessions.begin({ kind: "backup", holder, pins, silenceSeconds, sessionId });
        job.hasBegun = true;
      }
      let { recordKey } = job;
      if (recordKey === undefined) {
        const session = await sessions.resume(sessionId);
        recordKey = await transfer(mover, job, session, never);
        job.recordKey = recordKey;
        await session.renew();
        // The next stage waits in a queue, where a collection may be first.
        if (job.seeded.chance(0.4)) return false;
      }
      const session = await sessions.resume(sessionId);
      await commit(mover, { job, fence, recordKey }, session, never);
      return true;
    },

    /** The last stage of a job that is given up. */
    release: async (mover: Mover, job: BackupJob): Promise<void> => {
      if (!job.hasBegun || job.commits > 0) return;
      job.isReleased = true;
      counters.count("way: job given up");
      const session = await mover.repository.sessions.resume(job.sessionId);
      await session.abort();
    },

    restore: async (mover: Mover, point: ModelPoint): Promise<void> => {
      const { repository } = mover;
      const held = {
        ...contextOf(mover),
        kind: "restore",
        holder: "restore",
        pins: [point.rootKey],
      } as const;
      await withReadSession(held, async (_, signal) => {
        await restorePoint(repository, point, signal);
      });
      counters.count("way: restored");
    },

    collect: async (
      mover: Mover,
      how: { readonly expire: readonly string[]; readonly waitMs: number },
    ): Promise<CollectReport> => {
      for (const rootKey of how.expire) model.forgotten.add(rootKey);
      const report = await collect({
        repository: mover.collecting(),
        ...how,
        allowShare: 1,
        allowEmpty: true,
        holder: mover.process.name,
        observer: mover.host,
        logger,
      });
      counters.count(`way: collection ${report.state}`);
      if (report.reprieved > 0) counters.count("way: reprieved");
      if (report.earlier.lists > 0) counters.count("way: collection continued by another");
      if (report.fenced.length > 0) counters.count("way: session fenced");
      if (report.fenced.some(({ adopted }) => adopted.length > 0)) counters.count("way: adopted");
      if (report.index.rewritten + report.index.removed > 0) {
        counters.count("way: index without what is removed");
      }
      return report;
    },

    verify: async (mover: Mover): Promise<void> => {
      const held = { ...contextOf(mover), kind: "verify", holder: "verify", pins: [] } as const;
      await withReadSession(held, async (_, signal) => {
        const report = await verifyRepository({
          repository: mover.repository,
          share: 1,
          workers: 0,
          signal,
          logger,
          onProgress: () => undefined,
        });
        counters.count("way: verified");
        return report;
      });
    },
  };

  /** Fails with a violation when what is restored is not what was backed up. */
  async function restorePoint(
    repository: Repository,
    { rootKey, jobId }: ModelPoint,
    signal: AbortSignal,
  ): Promise<void> {
    const expected = model.snapshots.get(jobId)?.bytes ?? new Uint8Array(0);
    const point = await repository.readPoint(rootKey, { signal });
    const [disk] = point.disks;
    if (disk === undefined) throw new Violation(`${rootKey} has no disk`);
    const writer = createMemoryWriter(disk.sizeBytes, 0xaa);
    const { recordKey, digest } = disk;
    const common = { repository, recordKey, digest, writer, signal, logger };
    await restoreDisk({ ...common, onProgress: () => undefined, workers: 0 });
    if (Buffer.compare(writer.bytes, expected) !== 0) {
      throw new Violation(`${rootKey} was restored with other bytes than were backed up`);
    }
  }
}

async function recordOf(
  repository: Repository,
  rootKey: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const point = await repository.readPoint(rootKey, { signal });
    return point.disks[0]?.recordKey;
  } catch (error) {
    if (!isFailure(error, "object.not-found") && !isFailure(error, "object.corrupt")) throw error;
    return undefined;
  }
}

const metadata: NewPoint["metadata"] = {
  providerKind: "simulated",
  description: {
    name: "simulated",
    uuid: "",
    memoryBytes: 0,
    vcpus: 0,
    architecture: "",
    firmware: "bios",
    disks: [],
    nics: [],
    tags: [],
  },
  excludedDisks: [],
  documents: {},
};
