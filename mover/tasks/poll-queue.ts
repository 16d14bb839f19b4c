import { isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { ReceivedTask, TaskQueue } from "./ports.ts";

const pauseAfterFailureMs = 2000;

/**
 * Takes messages and runs them, at most `tasksMax` at once, until `stop` aborts. Then takes no more, gives the running
 * tasks `drainMs` to end by themselves, and after that aborts `drain`; resolves when all have ended.
 */
export async function pollQueue(options: {
  readonly queue: TaskQueue;
  readonly tasksMax: number;
  readonly drainMs: number;
  readonly run: (received: ReceivedTask, drain: AbortSignal) => Promise<void>;
  readonly stop: AbortSignal;
  readonly clock: Clock;
  readonly logger: Logger;
}): Promise<void> {
  const { queue, tasksMax, drainMs, run, stop, clock, logger } = options;
  const drain = new AbortController();
  const onStop = (): void => {
    setTimeout(() => drain.abort(new Error("the mover is stopping")), drainMs).unref();
  };
  stop.addEventListener("abort", onStop, { once: true });

  const work = async (): Promise<void> => {
    while (!stop.aborted) {
      try {
        const received = await queue.receive(stop);
        if (received !== undefined) await run(received, drain.signal);
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
  };
  await Promise.all(Array.from({ length: tasksMax }, work));
  stop.removeEventListener("abort", onStop);
}
