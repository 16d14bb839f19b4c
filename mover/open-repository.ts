import type { Catalog } from "@holdfast/shared/ports/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import { systemRandom } from "@holdfast/shared/ports/random";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { LimitBook } from "./limits/limit-book.ts";
import { openRepositoryAt } from "./open-repository-at.ts";
import { type ChunkIndexLoader, createChunkIndexLoader } from "./pipeline/chunk-index-loader.ts";

export type OpenedRepository = {
  readonly repository: Repository;
  /** Loads when the first transfer asks for it; a restore never does. */
  readonly indexLoader: ChunkIndexLoader;
};

/**
 * Opens each repository once per mover: deriving its key from the passphrase is slow on purpose, and all transfers
 * share one chunk index. Each task looks whether it is still there; what failed is tried again by the next task.
 */
export function createRepositoryOpener(options: {
  readonly catalog: Catalog;
  readonly parameters: Parameters;
  readonly logger: Logger;
  readonly limits?: Pick<LimitBook, "repository">;
  /** Memory for the chunk index of each repository. */
  readonly indexBytesMax?: number;
}): (repositoryId: string) => Promise<OpenedRepository> {
  const { catalog, parameters, logger } = options;

  async function open(repositoryId: string): Promise<OpenedRepository> {
    const item = await catalog.getRepository(repositoryId);
    const { url, passphraseParameter } = item;
    const repository = await openRepositoryAt(url, {
      throttles: options.limits?.repository(item),
      passphrase: await parameters.getSecret(passphraseParameter),
      clock: systemClock,
      random: systemRandom,
      logger,
    });
    const { indexBytesMax } = options;
    return {
      repository,
      indexLoader: createChunkIndexLoader(repository, { logger, indexBytesMax }),
    };
  }

  const opened = new Map<string, Promise<OpenedRepository>>();
  const openOnce = once(open, opened);
  return async (repositoryId) => {
    const known = opened.get(repositoryId);
    if (known === undefined || (await isThere(await known, logger))) return openOnce(repositoryId);
    if (opened.get(repositoryId) === known) opened.delete(repositoryId);
    return openOnce(repositoryId);
  };
}

/**
 * A share may have been unmounted, or mounted anew: then what was opened before is of no use any more. Nor is it when keys were added,
 * removed or rotated: a task that begins after a rotation seals under the new epoch.
 */
async function isThere({ repository }: OpenedRepository, logger: Logger): Promise<boolean> {
  try {
    if ((await repository.store.head("config")) === undefined) return false;
    return !(await repository.haveKeysChanged());
  } catch (error) {
    logger.warn("repository is opened anew", { error: String(error) });
    return false;
  }
}

/** Remembers what each key gave, but no failures. */
function once<Value>(
  make: (key: string) => Promise<Value>,
  made = new Map<string, Promise<Value>>(),
): (key: string) => Promise<Value> {
  return (key) => {
    const known = made.get(key);
    if (known !== undefined) return known;
    const making = make(key).catch((error: unknown) => {
      made.delete(key);
      throw error;
    });
    made.set(key, making);
    return making;
  };
}
