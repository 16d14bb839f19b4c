import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { openRepository, type Repository } from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";

/** Opens the repository at a URL; its store is used as its probe found it when the repository was made. */
export async function openRepositoryAt(
  url: string,
  options: {
    readonly passphrase: string;
    readonly clock: Clock;
    readonly random: RandomBytes;
    readonly logger: Logger;
  },
): Promise<Repository> {
  return await openRepository({
    ...options,
    store: await openObjectStore(url),
    reopenStore: (supports) => openObjectStore(url, { supports }),
  });
}
