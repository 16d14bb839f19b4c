import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { ObjectStore, ObjectStoreSupports } from "@holdfast/shared/ports/object-store";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import {
  openRepository,
  openRepositoryKeys,
  type Repository,
  type RepositoryKeys,
} from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";
import type { StoreThrottles } from "@holdfast/shared/storage/throttled";
import { keyService } from "./key-service.ts";

/** Opens the repository at a URL; its store is used as its probe found it when the repository was made. */
export async function openRepositoryAt(url: string, options: OpenOptions): Promise<Repository> {
  const limits = options.throttles === undefined ? {} : { throttles: options.throttles };
  return await openRepository({
    ...options,
    kms: keyService,
    store: await openObjectStore(url, limits),
    reopenStore: (supports) => reopen(url, { supports, ...limits }),
  });
}

export type OpenOptions = {
  /** Or the words of a recovery key, or `aws:kms`. */
  readonly passphrase: string;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly logger: Logger;
  /** All traffic with the store is within these. */
  readonly throttles?: StoreThrottles | undefined;
};

/** Its keys only, to be listed and changed. */
export async function openKeysAt(url: string, options: OpenOptions): Promise<RepositoryKeys> {
  return await openRepositoryKeys({
    ...options,
    kms: keyService,
    store: await openObjectStore(url),
    reopenStore: (supports) => reopen(url, { supports }),
  });
}

/** Looks at it at once: a folder's store remembers from its first use on which device it is, and refuses another. */
async function reopen(
  url: string,
  options: { readonly supports: ObjectStoreSupports; readonly throttles?: StoreThrottles },
): Promise<ObjectStore> {
  const store = await openObjectStore(url, options);
  if ((await store.head("config")) !== undefined) return store;
  throw new Failure("storage.unreachable", {
    message: `the repository at ${url} went away while it was opened`,
  });
}
