import { isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { ReceivedTask, TaskQueue } from "@holdfast/shared/ports/task-queue";

const pauseAfterFailureMs = 2000;
/** How often is looked whether all places are taken. */
const lookMs = 500;
/** With some 100 ms for each of four at once, a mover speaks for thousands of waiting tasks within the 90 s that they have. */
const watchersMax = 4;

/**
 * Takes messages and runs them, at most `tasksMax` at once, until `stop` aborts. Then takes no more, gives the running
 * tasks `drainMs` to end by themselves, and after that aborts `drain`; resolves when all have ended.
 *
 * While all places are taken, what waits in the queue is received as well and given to `tend`, which tells the workflow
 * that the task still waits and puts it back: the workflow takes a task that nobody speaks of for dead.
 */
export async function pollQueue(options: {
  readonly queue: TaskQueue;
  readonly tasksMax: number;
  readonly drainMs: number;
  readonly run: (received: ReceivedTask, drain: AbortSignal) => Promise<void>;
  readonly tend: (received: ReceivedTask) => Promise<void>;
  readonly stop: AbortSignal;
  readonly clock: Clock;
  readonly logger: Logger;
}): Promise<void> {
  const { queue, tasksMax, drainMs, run, tend, stop, clock, logger } = options;
  const drain = new AbortController();
  const onStop = (): void => {
    setTimeout(() => drain.abort(new Error("the mover is stopping")), drainMs).unref();
  };
  stop.addEventListener("abort", onStop, { once: true });
  let running = 0;

  async function work(): Promise<void> {
    const received = await queue.receive(stop);
    if (received === undefined) return;
    running += 1;
    try {
      await run(received, drain.signal);
    } finally {
      running -= 1;
    }
  }

  async function watchOver(): Promise<void> {
    if (running < tasksMax) return await clock.sleep(lookMs, stop);
    const received = await queue.receive(stop);
    if (received === undefined) return;
    // A place has become free meanwhile, or we stop: for whoever asks next.
    if (running < tasksMax || stop.aborted) await queue.extend(received.receipt, 0);
    else await tend(received);
  }

  async function repeat(step: () => Promise<void>): Promise<void> {
    while (!stop.aborted) {
      try {
        await step();
      } catch (error) {
        if (stop.aborted) return;
        logger.error("task not run", {
          error: error instanceof Error ? error.message : String(error),
          code: isFailure(error) ? error.code : "internal",
        });
        // The message comes back when its visibility ends.
        await clock.sleep(pauseAfterFailureMs, stop).catch(() => undefined);
      }
    }
  }

  const times = (count: number, step: () => Promise<void>) =>
    Array.from({ length: count }, () => repeat(step));
  await Promise.all([...times(tasksMax, work), ...times(watchersMax, watchOver)]);
  stop.removeEventListener("abort", onStop);
}
