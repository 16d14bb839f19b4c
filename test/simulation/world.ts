import { isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { unexplainedRootMs } from "@holdfast/shared/repository/maintenance/safety";
import type { Repository } from "@holdfast/shared/repository/repository";
import { sessionOfRoot } from "@holdfast/shared/repository/session/session-state";
import { withRetries } from "@holdfast/shared/storage/with-retries";
import { createChunkIndexLoader } from "../../mover/pipeline/chunk-index-loader.ts";
import { type Bucket, createBucket } from "./bucket.ts";
import { type Counters, createCounters } from "./counters.ts";
import { changeDisk, newDisk } from "./disks.ts";
import { calm, calmProfile, chooseProfile, type FaultProfile, type FaultRates } from "./faults.ts";
import { type BackupJob, createJobs, type Mover } from "./jobs.ts";
import { createModel } from "./model.ts";
import { createMonitor, type Monitor, Violation } from "./monitor.ts";
import type { Mutant } from "./mutants.ts";
import { createProcess } from "./process.ts";
import { createSecrets, openFor } from "./repository-of.ts";
import { createScheduler, type Scheduler } from "./scheduler.ts";
import { createSeeded } from "./seeded.ts";
import { createSimulatedStore } from "./store.ts";

export type SeedOptions = {
  readonly seed: number;
  readonly operations: number;
  readonly onLine?: ((line: string) => void) | undefined;
  readonly mutant?: Mutant;
};

export type SeedResult = {
  readonly seed: number;
  readonly steps: number;
  readonly logHash: string;
  readonly counts: ReadonlyMap<string, number>;
  readonly failure?: {
    readonly message: string;
    readonly isViolation: boolean;
    readonly tail: readonly string[];
  };
};

export async function runSeed(o: SeedOptions): Promise<SeedResult> {
  const counters = createCounters();
  const seeded = createSeeded(o.seed);
  const scheduler = createScheduler(seeded.fork("scheduler"), {
    logLinesKept: 300,
    onLine: o.onLine,
  });
  const common = (): Omit<SeedResult, "failure"> => ({
    seed: o.seed,
    steps: scheduler.steps(),
    logHash: scheduler.logHash(),
    counts: counters.all(),
  });
  try {
    await live(o, scheduler, counters);
    return common();
  } catch (error) {
    const message =
      error instanceof Violation
        ? error.message
        : error instanceof Error
          ? (error.stack ?? error.message)
          : String(error);
    return {
      ...common(),
      failure: { message, isViolation: error instanceof Violation, tail: scheduler.logTail() },
    };
  }
}

const movers = 4;
const hosts = 3;
const vms = 3;
const jobsPerMoverMax = 2;
const hourMs = 3_600_000;

async function live(o: SeedOptions, scheduler: Scheduler, counters: Counters): Promise<void> {
  const seeded = createSeeded(o.seed, "world");
  const work = seeded.fork("work");
  const faults = seeded.fork("faults");
  const profile: FaultProfile =
    o.mutant?.isCalm === true ? calmProfile : chooseProfile(seeded.fork("profile"));
  const secrets = createSecrets(seeded.fork("secrets"));
  const model = createModel();
  let rates: FaultRates = profile.rates;
  let outUntil = 0;
  let violation: unknown;

  const monitor = createMonitor({ bucket: () => bucket, secrets, model, counters });
  const bucket = createBucket({
    now: scheduler.now,
    onChange: (change) => {
      try {
        monitor.see(change);
      } catch (error) {
        violation ??= error;
      }
    },
  });
  const jobs = createJobs({ model, monitor, counters });
  const disks = Array.from({ length: vms }, (_, vm) => newDisk(work.fork(`disk ${vm}`)));
  const running = new Map<Mover, number>();
  const interrupted: BackupJob[] = [];
  let incarnations = 0;
  let pointNumber = 0;

  const skews = Array.from(
    { length: hosts },
    () => profile.skewMsMax * (faults.below(2001) / 1000 - 1),
  );

  function startMover(): Mover {
    incarnations += 1;
    const hostNumber = work.below(hosts);
    const host = `host-${hostNumber}`;
    const name = `m${incarnations}@${hostNumber}`;
    const its = seeded.fork(name);
    const skewMs = skews[hostNumber] ?? 0;
    const process = createProcess({
      name,
      scheduler,
      rates: () => rates,
      faults,
      random: its.bytes,
      skewMs: Math.round(skewMs),
      counters,
      onDeath: () => running.delete(mover),
    });
    const store = createSimulatedStore({
      bucket,
      process,
      scheduler,
      faults,
      rates: () => rates,
      isOut: () => scheduler.now() < outUntil,
      conditionalPut: profile.conditionalPut,
      counters,
    });
    const retried = withRetries(store, { attemptsMax: 4 }, process.clock, process.random);
    const open = (its: ObjectStore): Repository =>
      openFor({ process, store: its, secrets, logger: silentLogger });
    const repository = open(o.mutant?.writer?.(retried, process) ?? retried);
    const collecting = (): Repository => open(o.mutant?.collector?.(retried, process) ?? retried);
    const indexLoader = createChunkIndexLoader(repository, { logger: silentLogger });
    const mover: Mover = { process, host, repository, collecting, indexLoader };
    running.set(mover, 0);
    return mover;
  }

  function freeMover(): Mover | undefined {
    if (running.size < movers) startMover();
    const free = [...running].filter(([, jobsNow]) => jobsNow < jobsPerMoverMax);
    return work.pick(free)?.[0];
  }

  /** Runs in the mover; what goes wrong there is judged by `onFailure`, what must never be is kept. */
  function run(
    mover: Mover,
    what: string,
    operation: () => Promise<void>,
    onFailure: (error: unknown) => void,
  ): void {
    const { name } = mover.process;
    scheduler.log(`${name} begins ${what}`);
    running.set(mover, (running.get(mover) ?? 0) + 1);
    const ended = (): void => {
      if (running.has(mover)) running.set(mover, (running.get(mover) ?? 1) - 1);
    };
    operation().then(
      () => {
        scheduler.log(`${name} has done ${what}`);
        ended();
      },
      (error: unknown) => {
        const code = isFailure(error) ? error.code : String(error);
        scheduler.log(`${name} failed with ${what}: ${code}`);
        counters.count(`failure: ${code}`);
        ended();
        try {
          onFailure(error);
        } catch (unexpected) {
          violation ??= unexpected;
        }
      },
    );
  }

  function newJob(): BackupJob {
    pointNumber += 1;
    const number = String(pointNumber).padStart(4, "0");
    const vm = work.below(vms);
    const vmKey = `vm-${vm}`;
    const disk = disks[vm] ?? new Uint8Array(0);
    // A VM that is reverted, or another's clone, has contents again of which older points may be about to go.
    const older = work.chance(0.4) ? work.pick([...model.snapshots.values()]) : undefined;
    if (older !== undefined) disk.set(older.bytes.subarray(0, disk.length));
    changeDisk(disk, work, work.below(6));
    const jobId = `j${number}`;
    model.snapshots.set(jobId, { vmKey, bytes: Uint8Array.from(disk) });
    return {
      jobId,
      pointId: `p${number}`,
      vmKey,
      isStaged: work.chance(0.6),
      parent: work.chance(0.85) ? model.newest(vmKey) : undefined,
      seeded: work.fork(jobId),
      attempts: 0,
      sessionId: toHex(work.bytes(8)),
      hasBegun: false,
      checkpoint: undefined,
      recordKey: undefined,
      commits: 0,
      isReleased: false,
    };
  }

  function backUp(mover: Mover, job: BackupJob): void {
    job.attempts += 1;
    const backup = job.isStaged ? jobs.staged(mover, job) : jobs.standalone(mover, job);
    if (job.isStaged && !interrupted.includes(job)) interrupted.push(job);
    run(
      mover,
      `backup ${job.jobId} of ${job.vmKey}, attempt ${job.attempts}`,
      async () => {
        if (await backup) forget(job);
      },
      (error) => {
        if (isFailure(error, "session.ended")) forget(job);
        // What it made was collected, because others had ended its session.
        const isOver = !monitor.isOpen(job.sessionId);
        const mayMiss = isOver || mover.process.hasSlept();
        if (job.isReleased && isFailure(error, "fence.lost")) return;
        if (!(mayMiss && isFailure(error, "object.not-found"))) failIfWrong(error);
      },
    );
  }

  function forget(job: BackupJob): void {
    const at = interrupted.indexOf(job);
    if (at >= 0) interrupted.splice(at, 1);
  }

  /** What may fail in a world like this one. */
  function failIfWrong(error: unknown): void {
    if (isFailure(error)) {
      const { code } = error;
      const isDamageSeen = profile.rates.flip > 0 || profile.rates.cut > 0;
      const isStale = profile.rates.staleRead > 0;
      if (code === "object.corrupt" && (isDamageSeen || isStale)) return;
      if (code === "object.not-found" && isStale) return;
      if (code === "index.stale" && isStale) return;
      if (code === "repository.epoch-unknown" && profile.rates.flip > 0) return;
      if (code === "collect.damaged" && (isDamageSeen || isStale)) return;
      if (code === "session.ended" || code === "busy" || code.startsWith("storage.")) return;
    }
    throw error;
  }

  function operate(): void {
    const mover = freeMover();
    if (mover === undefined) return;
    const kind = work.below(100);
    const job = work.pick(interrupted);
    if (kind < 20 && job !== undefined) {
      if (work.chance(0.2)) {
        forget(job);
        run(mover, `release of ${job.jobId}`, () => jobs.release(mover, job), failIfWrong);
      } else {
        counters.count("way: job continued by another");
        backUp(mover, job);
      }
    } else if (kind < 55) {
      backUp(mover, newJob());
    } else if (kind < 75) {
      const expire = chooseExpiring();
      const waitMs = work.chance(0.6)
        ? work.below(60_000)
        : work.below(work.chance(0.9) ? hourMs / 2 : 4 * hourMs);
      run(
        mover,
        `collect, removing ${expire.join(" ") || "no point"}`,
        async () => {
          await jobs.collect(mover, { expire, waitMs });
        },
        (error) => {
          // What it had listed, another collector has removed: they work side by side only where one has slept.
          if (!(hasAnyoneSlept() && isFailure(error, "collect.damaged"))) failIfWrong(error);
        },
      );
    } else if (kind < 90) {
      const point = work.pick(model.kept().filter(({ rootKey }) => !monitor.isReplaced(rootKey)));
      if (point === undefined) return;
      run(
        mover,
        `restore of ${point.rootKey}`,
        () => jobs.restore(mover, point),
        (error) => {
          const { rootKey } = point;
          const mayBeGone = model.forgotten.has(rootKey) || monitor.isReplaced(rootKey);
          const isGone = isFailure(error, "object.not-found") || isFailure(error, "object.corrupt");
          if (mayBeGone && isGone) return;
          failIfWrong(error);
        },
      );
    } else if (kind < 95) {
      run(mover, "verify", () => jobs.verify(mover), failIfWrong);
    } else {
      counters.count("fault: killed");
      mover.process.kill();
    }
  }

  const hasAnyoneSlept = (): boolean =>
    counters.all().has("fault: sleep") || counters.all().has("fault: sleep of days");

  /** Some of the older points of some VMs; now and then the newest, which others may be building on. */
  function chooseExpiring(): readonly string[] {
    const kept = [...model.kept()].sort((left, right) => (left.pointId < right.pointId ? -1 : 1));
    const candidates = work.chance(0.3) ? kept : kept.slice(0, -vms);
    return candidates.filter(() => work.chance(0.3)).map(({ rootKey }) => rootKey);
  }

  // The director: no process, so nothing happens to it.
  let left = o.operations;
  const tick = (): boolean => {
    left -= 1;
    if (left <= 0) return false;
    const { hoursBetweenOutages } = profile;
    if (hoursBetweenOutages > 0 && work.chance(1 / (6 * hoursBetweenOutages))) {
      counters.count("fault: outage of hours");
      outUntil = scheduler.now() + work.between(1, 5) * hourMs;
    }
    operate();
    // Mostly close together, so that all meet all; then again a while of nothing.
    const pause = work.below(20);
    const pauseMs = pause < 13 ? work.below(4000) : work.below(pause < 18 ? 900_000 : 10 * hourMs);
    scheduler.after(pauseMs, tick);
    return true;
  };
  scheduler.after(0, tick);
  const failed = (): boolean => violation !== undefined;
  await scheduler.runUntil(() => left <= 0 || failed(), 400_000);
  if (failed()) throw violation;

  // Now all is well, and everything must come to its end.
  rates = calm;
  outUntil = 0;
  const isIdle = (): boolean => [...running.values()].every((jobsNow) => jobsNow === 0);
  await scheduler.runUntil(() => isIdle() || failed(), 200_000);
  if (failed()) throw violation;
  const last = startMover();
  // Who died without an end is taken for dead when it has been silent for a day; what is of nobody is gone after two collections.
  await finish(async () => {
    try {
      await jobs.collect(last, { expire: [], waitMs: 0 });
    } catch (error) {
      // A collector that died is still taken for one that works.
      if (!isFailure(error, "busy")) throw error;
    }
  });
  await finish(() => last.process.clock.sleep(2 * 24 * hourMs));
  // A root that a mover put after its session was cleared away may be a point whose session somebody removed: it stays for its days, and not longer.
  let unexplained = 0;
  for (let collection = 0; collection < 3; collection += 1) {
    if (collection === 2) {
      if (unexplained === 0) break;
      counters.count("way: unexplained root kept");
      await finish(() => last.process.clock.sleep(unexplainedRootMs));
    }
    await finish(async () => {
      const report = await jobs.collect(last, { expire: [], waitMs: hourMs });
      if (report.state !== "done") throw new Violation(`the last collections end ${report.state}`);
      unexplained = report.unexplained.length;
    });
  }
  if (unexplained > 0) throw new Violation("an unexplained root stays for longer than it should");
  const garbage = findGarbage(bucket, monitor);
  if (garbage.length > 0) throw new Violation(`garbage is left: ${garbage.join(" ")}`);
  for (const { rootKey } of model.kept()) monitor.confirmed(rootKey);
  for (const rootKey of monitor.points()) {
    const jobId = /-(j\d+)-/.exec(rootKey)?.[1] ?? "";
    const point = { rootKey, jobId, pointId: "", vmKey: "" };
    await finish(() => jobs.restore(last, point));
  }

  async function finish(operation: () => Promise<void>): Promise<void> {
    let isDone = false;
    let failure: unknown;
    operation().then(
      () => {
        isDone = true;
      },
      (error: unknown) => {
        failure = error;
        isDone = true;
      },
    );
    await scheduler.runUntil(() => isDone || failed(), 100_000);
    if (failed()) throw violation;
    if (failure !== undefined) throw failure;
  }
}

/** Sessions of readers and collectors that have ended since the last collection began. */
const sessionsLeftMax = 2;

function findGarbage(bucket: Bucket, monitor: Monitor): readonly string[] {
  const points = monitor.points();
  const needed = monitor.neededBy([...points, ...monitor.attemptsBesides()]);
  const sessionIds = new Set(points.map((rootKey) => sessionOfRoot(rootKey)?.sessionId));
  const sessionsLeft = new Set<string>();
  return bucket.keys("").filter((key) => {
    const [folder, id = ""] = key.split("/");
    if (needed.has(key) || folder === "index" || key.startsWith("condemned/seen-")) return false;
    // Lists of what was reprieved stay as long as that does.
    if (folder === "condemned" && monitor.isListOfNeeded(key, needed)) return false;
    if (folder !== "sessions") return true;
    if (!sessionIds.has(id)) sessionsLeft.add(id);
    return sessionsLeft.size > sessionsLeftMax;
  });
}
