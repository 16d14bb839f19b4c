import type { Provider, RateLimits, Repository } from "@holdfast/shared/contracts/catalog-items";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Driver } from "@holdfast/shared/ports/driver";
import type { Logger } from "@holdfast/shared/ports/logger";
import { createThrottle, type Throttle } from "@holdfast/shared/storage/throttle";
import type { StoreThrottles } from "@holdfast/shared/storage/throttled";
import {
  type DiskThrottles,
  throttledReader,
  throttledWriter,
} from "../transport/throttled-disk.ts";
import type { OwnLimits } from "./own-limits.ts";

/**
 * The limits that the catalog has for repositories and providers, together with the mover's own. All tasks of the mover share
 * them; a change in the catalog holds within some seconds, also for what runs.
 */
export type LimitBook = AsyncDisposable & {
  readonly repository: (item: Repository) => StoreThrottles;
  readonly provider: (item: Provider) => DiskThrottles;
  /** Looks into the catalog now; failures are logged, and what was known stays. */
  readonly refresh: () => Promise<void>;
};

const lookEveryMs = 10_000;

type Entry = {
  readonly read: Throttle;
  readonly write: Throttle;
  readonly requests: Throttle;
  readonly look: () => Promise<RateLimits | undefined>;
};

export function createLimitBook(o: {
  readonly catalog: Pick<Catalog, "getRepository" | "getProvider">;
  readonly own: OwnLimits;
  readonly clock: Clock;
  readonly logger: Logger;
}): LimitBook {
  const { catalog, own, clock, logger } = o;
  const entries = new Map<string, Entry>();
  const ended = new AbortController();

  function entryOf(what: string, limits: RateLimits | undefined, look: Entry["look"]): Entry {
    const make = (direction: string): Throttle =>
      createThrottle({ clock, what: `${direction} ${what}` });
    const entry = entries.get(what) ?? {
      read: make("reading from"),
      write: make("writing to"),
      requests: make("requests to"),
      look,
    };
    entries.set(what, entry);
    set(entry, limits);
    return entry;
  }

  async function refresh(): Promise<void> {
    for (const [what, entry] of entries) {
      try {
        set(entry, await entry.look());
      } catch (error) {
        logger.warn("limits not looked up", { what, reason: String(error) });
      }
    }
  }

  async function follow(): Promise<void> {
    for (;;) {
      try {
        await clock.sleep(lookEveryMs, ended.signal);
      } catch {
        return;
      }
      await refresh();
    }
  }

  const following = follow();
  return {
    refresh,
    repository: ({ repositoryId, limits }) => {
      const look = async () => (await catalog.getRepository(repositoryId)).limits;
      const entry = entryOf(`repository ${repositoryId}`, limits, look);
      return {
        download: [...own.store.download, entry.read],
        upload: [...own.store.upload, entry.write],
        requests: [...own.store.requests, entry.requests],
      };
    },
    provider: ({ providerId, limits }) => {
      const look = async () => (await catalog.getProvider(providerId)).limits;
      const entry = entryOf(`provider ${providerId}`, limits, look);
      return {
        read: [...own.disk.read, entry.read],
        write: [...own.disk.write, entry.write],
        requests: [...own.disk.requests, entry.requests],
      };
    },
    async [Symbol.asyncDispose]() {
      ended.abort();
      await following;
    },
  };
}

function set({ read, write, requests }: Entry, limits: RateLimits | undefined): void {
  read.setRate(limits?.readBytesPerSecond ?? "off");
  write.setRate(limits?.writeBytesPerSecond ?? "off");
  requests.setRate(limits?.requestsPerSecond ?? "off");
}

/** The same driver, whose disks are read and written within limits. */
export function withThrottledDisks(driver: Driver, throttles: DiskThrottles): Driver {
  return {
    ...driver,
    openDisk: async (session, diskKey, options) =>
      throttledReader(await driver.openDisk(session, diskKey, options), throttles),
    openTarget: async (session, diskKey, context) =>
      throttledWriter(await driver.openTarget(session, diskKey, context), throttles),
  };
}
