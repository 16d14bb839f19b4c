import type { ReplicaReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import { configName } from "@holdfast/shared/repository/format/config";
import { openObjectStore, probeStorage } from "@holdfast/shared/storage/open-object-store";
import { standaloneHolder } from "../hold-session.ts";
import { copyReplica, type ReplicaCounts } from "../pipeline/copy-replica.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** People hear at most this often how far it is. */
const noteMs = 5000;

export async function replicate(
  context: StandaloneContext,
  { url, passphrase, targetUrl }: Request<"repository-replicate">,
): Promise<ReplicaReport> {
  const { clock, logger, signal } = context;
  const source = await context.open({ url, passphrase });
  const targetStore = await openObjectStore(targetUrl, { throttles: context.limits.store });
  if ((await targetStore.head(configName, { signal })) === undefined) {
    const { supports, findings } = await probeStorage(targetUrl, { signal });
    for (const { severity, what, remedy } of findings) {
      if (severity === "warning") context.emit({ type: "warning", message: `${what}. ${remedy}` });
    }
    if (source.lock !== undefined && supports.objectLock !== true) {
      throw new Failure("unsupported", {
        message: `${url} locks its objects, and ${targetUrl} cannot: use an S3 bucket that was created with Object Lock, or copy points to a repository without locks`,
      });
    }
  }
  let notedMs = clock.now();
  const onProgress = ({ objects, bytes }: ReplicaCounts): void => {
    if (clock.now() - notedMs < noteMs) return;
    notedMs = clock.now();
    const mebibytes = Math.round(bytes / 1024 ** 2);
    context.emit({ type: "note", message: `Copied ${objects} objects, ${mebibytes} MiB` });
  };
  const report = await copyReplica({
    source,
    targetStore,
    openTarget: () => context.open({ url: targetUrl, passphrase }),
    holder: `replica, ${standaloneHolder()}`,
    clock,
    onProgress,
    onNoSession: (message) => context.emit({ type: "warning", message }),
    signal,
    logger,
  });
  return { ...report, different: [...report.different] };
}
