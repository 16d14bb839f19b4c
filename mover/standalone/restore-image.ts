import type { Repository } from "@holdfast/shared/repository/repository";
import { standaloneHolder, withReadSession } from "../hold-session.ts";
import { restoreDisk } from "../pipeline/restore-disk.ts";
import { openImageTarget } from "../transport/image-target.ts";
import { throttledWriter } from "../transport/throttled-disk.ts";
import { chooseDisk, findRoot } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Restores one disk of a point to a file or block device. */
export async function restoreImage(
  context: StandaloneContext,
  request: Request<"image-restore">,
): Promise<unknown> {
  const repository = await context.open(request);
  const rootKey = request.rootKey ?? (await findRoot(context, repository, request.pointId));
  return await withReadSession(
    {
      ...context,
      repository,
      kind: "restore",
      holder: standaloneHolder(),
      pins: [rootKey],
      onNoSession: (message) => context.emit({ type: "warning", message }),
    },
    (_, signal) => restore({ ...context, signal }, request, repository, rootKey),
  );
}

async function restore(
  context: StandaloneContext,
  request: Request<"image-restore">,
  repository: Repository,
  rootKey: string,
): Promise<unknown> {
  const { signal, logger } = context;
  const startedMs = context.clock.now();
  const { output, format, overwrite, despiteDamage } = request;
  const point = await repository.readSummary(rootKey, { signal });
  const disk = chooseDisk(point, request.disk);
  const { sizeBytes } = disk;
  await using writer = await openImageTarget({ output, format, sizeBytes, overwrite, signal });
  const { lost } = await restoreDisk({
    repository,
    recordKey: disk.recordKey,
    digest: disk.digest,
    writer: throttledWriter(writer, context.limits.disk),
    despiteDamage,
    onProgress: context.reportProgress(disk.key),
    signal,
    logger,
  });
  await writer.commit();
  const seconds = (context.clock.now() - startedMs) / 1000;
  const summary = { sizeBytes, bytesScanned: sizeBytes, bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  return {
    pointId: point.pointId,
    disk: disk.key,
    output,
    lost,
    summary: { ...summary, seconds },
  };
}
