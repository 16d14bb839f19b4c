import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore, probeStorage } from "@holdfast/shared/storage/open-object-store";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Creates a repository, after the storage has shown that it can hold one. */
export async function initRepository(
  context: StandaloneContext,
  { url, passphrase }: Request<"repository-init">,
): Promise<unknown> {
  const { clock, random, logger } = context;
  const supports = await probeStorage(url, { signal: context.signal });
  const store = await openObjectStore(url, { supports });
  const created = await createRepository({ store, passphrase, clock, random, logger });
  return { repositoryId: created.repositoryId, url };
}
