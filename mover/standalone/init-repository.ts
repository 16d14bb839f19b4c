import { Failure } from "@holdfast/shared/domain/failure";
import { configName } from "@holdfast/shared/repository/format/config";
import { createRepository, type Repository } from "@holdfast/shared/repository/repository";
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
  if (lock !== undefined) await checkLocked(created, lock.days);
  return { repositoryId: created.repositoryId, url };
}

/** Some stores take a retention and drop it. */
async function checkLocked({ store, clock }: Repository, days: number): Promise<void> {
  const state = await store.locks?.look(configName);
  const promisedMs = clock.now() + days * dayMs - clockSkewMs;
  if ((state?.retention?.untilMs ?? 0) >= promisedMs) return;
  throw new Failure("storage.refused", {
    message: `${store.url} took a retention of ${days} days and did not keep it: do not use this repository`,
  });
}

const dayMs = 24 * 60 * 60 * 1000;
const clockSkewMs = 10 * 60 * 1000;
