import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore, probeStorage } from "@holdfast/shared/storage/open-object-store";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Creates a repository, after the storage has shown that it can hold one. */
export async function initRepository(
  context: StandaloneContext,
  { url, passphrase, lock }: Request<"repository-init">,
): Promise<unknown> {
  const { clock, random, logger } = context;
  const { supports, findings } = await probeStorage(url, { signal: context.signal });
  for (const { severity, what, remedy } of findings) {
    if (severity === "warning") context.emit({ type: "warning", message: `${what}. ${remedy}` });
  }
  if (lock === undefined && supports.objectLock === true) {
    const message = "the bucket has Object Lock, and this repository does not use it: see --lock";
    context.emit({ type: "warning", message });
  }
  const store = await openObjectStore(url, { supports });
  const created = await createRepository({ store, passphrase, lock, clock, random, logger });
  return { repositoryId: created.repositoryId, url };
}
