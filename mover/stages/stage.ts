import type { Job, TaskRecord } from "@holdfast/shared/contracts/catalog-items";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Driver, DriverContext } from "@holdfast/shared/ports/driver";
import type { Ledger } from "@holdfast/shared/ports/ledger";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { OpenedRepository } from "../open-repository.ts";

/** What a mover's stages reach the world through; built in main.ts only. */
export type MoverServices = {
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly openDriver: (providerId: string) => Promise<Driver>;
  /** The opened repository, shared by all tasks of this mover. */
  readonly openRepository: (repositoryId: string) => Promise<OpenedRepository>;
  readonly workers: number | undefined;
};

/**
 * One run of one task. `signal` aborts when the job is cancelled, the claim is lost or the mover drains.
 * `watch` is called with every heartbeat; what it throws stops the task.
 */
export type StageContext = MoverServices & {
  readonly job: Job;
  readonly record: TaskRecord;
  readonly signal: AbortSignal;
  readonly logger: Logger;
  readonly watch: (check: () => Promise<void>) => void;
};

export type StageResult = Record<string, unknown>;

/** A line in the job's log that operators read. */
export async function tell(
  context: StageContext,
  level: "info" | "warn" | "error",
  message: string,
): Promise<void> {
  const time = new Date(context.clock.now()).toISOString();
  await context.catalog.appendLog(context.job.jobId, {
    time,
    level,
    message: message.slice(0, 4000),
  });
}

export function driverContext(
  context: StageContext,
  owner: Parameters<Catalog["ledger"]>[0],
): DriverContext {
  return {
    jobId: context.job.jobId,
    ledger: fencedLedger(context, context.catalog.ledger(owner)),
    logger: context.logger,
    signal: context.signal,
  };
}

/**
 * Before a clean-up: takes the job's tasks away from movers that may still hold them. They do nothing more on the
 * hypervisor then (see `fencedLedger`), so nothing appears behind the clean-up's back.
 */
export async function takeOverTasks(
  { catalog, job, record }: StageContext,
  taskNames: readonly string[],
): Promise<void> {
  for (const name of taskNames) await catalog.claimTask(job.jobId, name, record.moverId);
}

/**
 * A mover that wakes up after its task was taken over makes and removes nothing more: whatever it would do on the
 * hypervisor goes through the ledger first, and the ledger answers `fence.lost`. Two attempts of one job use the same names,
 * so a late clean-up of the first would otherwise take away what the second has made.
 */
function fencedLedger({ catalog, job, record }: StageContext, ledger: Ledger): Ledger {
  const confirm = (): Promise<void> => catalog.confirmClaim(job.jobId, record);
  return {
    async intend(entry) {
      await confirm();
      await ledger.intend(entry);
    },
    async keep(entryId) {
      await confirm();
      await ledger.keep(entryId);
    },
    async settle(entryId) {
      await confirm();
      await ledger.settle(entryId);
    },
    async list() {
      await confirm();
      return ledger.list();
    },
  };
}
