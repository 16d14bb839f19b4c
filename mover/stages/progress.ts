import type { DiskProgress } from "@holdfast/shared/contracts/catalog-items";
import type { StageContext } from "./stage.ts";

export type ProgressNumbers = Pick<
  DiskProgress,
  "bytesDone" | "bytesTotal" | "bytesRead" | "bytesNew" | "bytesStored"
>;

export interface ProgressReporter extends AsyncDisposable {
  /** Cheap; the catalog hears of it once a second. */
  report(now: ProgressNumbers): void;
  finish(now: ProgressNumbers): Promise<void>;
}

const writeEveryMs = 1000;

/** Tells the catalog how far a disk is. A failed write of progress stops no transfer: the next one follows. */
export function createProgressReporter(
  { catalog, clock, job, logger }: StageContext,
  disk: Pick<DiskProgress, "diskKey" | "sizeBytes" | "mode" | "reason">,
): ProgressReporter {
  const startedAt = new Date(clock.now()).toISOString();
  let lastWrite = 0;
  let writing: Promise<void> = Promise.resolve();
  let isWriting = false;

  const write = (now: ProgressNumbers, finished: boolean): Promise<void> =>
    catalog.putProgress(job.jobId, {
      ...disk,
      bytesDone: now.bytesDone,
      bytesTotal: now.bytesTotal,
      bytesRead: now.bytesRead,
      bytesNew: now.bytesNew,
      bytesStored: now.bytesStored,
      startedAt,
      updatedAt: new Date(clock.now()).toISOString(),
      finished,
    });

  return {
    report(now) {
      if (isWriting || clock.now() - lastWrite < writeEveryMs) return;
      lastWrite = clock.now();
      isWriting = true;
      writing = write(now, false)
        .catch((error: unknown) => logger.warn("progress not written", { error: String(error) }))
        .finally(() => {
          isWriting = false;
        });
    },
    async finish(now) {
      await writing;
      await write(now, true);
    },
    async [Symbol.asyncDispose]() {
      await writing;
    },
  };
}
