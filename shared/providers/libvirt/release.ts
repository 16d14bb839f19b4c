import type { DriverContext, ReleaseRequest } from "../../ports/driver.ts";
import type { LedgerEntry } from "../../ports/ledger.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { isKeepable, sweep } from "./sweep.ts";

/**
 * Removes what the job made, by the ledger alone. Committed: what the new anchor consists of is marked as kept
 * first, then all else goes, so that dying in between loses neither anchor. Failed: the job's own things go, what
 * the last point left stays.
 */
export async function releaseJob(
  host: LibvirtHost,
  request: ReleaseRequest,
  context: DriverContext,
): Promise<void> {
  const { ledger, logger } = context;
  const entries = (await ledger.list()).filter(({ kind }) => !kind.startsWith("restore-"));
  const plan = planRelease(entries, request, context.jobId);
  for (const entry of plan.keep) {
    if (!entry.kept) await ledger.keep(entry.id);
  }
  await sweep({ host, uuid: request.externalId, ledger, logger }, plan.remove);
}

export function planRelease(
  entries: readonly LedgerEntry[],
  { session, outcome, previous, endedJobIds }: ReleaseRequest,
  jobId: string,
): { readonly keep: readonly LedgerEntry[]; readonly remove: readonly LedgerEntry[] } {
  const previousJobId = anchorJobId(previous?.state);
  if (outcome === "committed") {
    const isKept = (entry: LedgerEntry): boolean => {
      if (!isKeepable(entry)) return false;
      // Without its session, a committed job's things say themselves whether they were made to stay.
      return session === undefined
        ? entry.jobId === jobId && entry.details["forIncremental"] === true
        : entry.jobId === anchorJobId(session.anchor?.state);
    };
    return { keep: entries.filter(isKept), remove: entries.filter((entry) => !isKept(entry)) };
  }
  const ended = new Set([jobId, ...endedJobIds]);
  const remove = entries.filter(
    (entry) =>
      ended.has(entry.jobId) &&
      !entry.kept &&
      !(isKeepable(entry) && entry.jobId === previousJobId),
  );
  return { keep: [], remove };
}

function anchorJobId(state: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const jobId = state?.["jobId"];
  return typeof jobId === "string" ? jobId : undefined;
}
