import type { Catalog } from "@holdfast/shared/ports/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import { systemRandom } from "@holdfast/shared/ports/random";
import { openRepository, type Repository } from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";

/** Opens each repository once per mover: deriving its key from the passphrase is slow on purpose. A failed opening is tried again by the next task. */
export function createRepositoryOpener(options: {
  readonly catalog: Catalog;
  readonly parameters: Parameters;
}): (repositoryId: string) => Promise<Repository> {
  const { catalog, parameters } = options;
  const opened = new Map<string, Promise<Repository>>();

  async function open(repositoryId: string): Promise<Repository> {
    const { url, passphraseParameter } = await catalog.getRepository(repositoryId);
    return openRepository({
      store: await openObjectStore(url),
      passphrase: await parameters.getSecret(passphraseParameter),
      clock: systemClock,
      random: systemRandom,
    });
  }

  return (repositoryId) => {
    const known = opened.get(repositoryId);
    if (known !== undefined) return known;
    const opening = open(repositoryId).catch((error: unknown) => {
      opened.delete(repositoryId);
      throw error;
    });
    opened.set(repositoryId, opening);
    return opening;
  };
}
