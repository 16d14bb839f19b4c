import type { Mover } from "@holdfast/shared/contracts/catalog-items";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";

/** A mover counts as there for two minutes after it was seen: three writes may fail. */
const writeEveryMs = 30_000;
/** What movers that died left is removed by the next one that starts, so that a crash loop piles nothing up. */
const forgetAfterMs = 3_600_000;

/**
 * Keeps an item in the catalog that says that this mover is there; people look at it, no decision does. What fails is
 * logged and tried again with the next write: work goes on without it. Disposing ends it and removes the item.
 */
export function showPresence(options: {
  readonly catalog: Pick<Catalog, "recordMover" | "listMovers" | "forgetMover">;
  readonly mover: Pick<Mover, "moverId" | "siteId" | "version">;
  readonly clock: Clock;
  readonly logger: Logger;
}): AsyncDisposable {
  const { catalog, mover, clock, logger } = options;
  const ended = new AbortController();
  const time = (ms: number): string => new Date(ms).toISOString();
  const startedAt = time(clock.now());

  async function trying(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      logger.warn(`presence not ${what}`, { error: String(error) });
    }
  }

  async function forgetOthers(): Promise<void> {
    const before = time(clock.now() - forgetAfterMs);
    for (const { moverId, seenAt } of await catalog.listMovers()) {
      if (seenAt < before) await catalog.forgetMover(moverId);
    }
  }

  async function repeat(): Promise<void> {
    await trying("cleaned up", forgetOthers);
    for (;;) {
      const seenAt = time(clock.now());
      await trying("shown", () => catalog.recordMover({ ...mover, startedAt, seenAt }));
      try {
        await clock.sleep(writeEveryMs, ended.signal);
      } catch {
        return;
      }
    }
  }

  const running = repeat();
  return {
    async [Symbol.asyncDispose]() {
      ended.abort();
      await running;
      await trying("removed", () => catalog.forgetMover(mover.moverId));
    },
  };
}
