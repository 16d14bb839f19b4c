import { createHash } from "node:crypto";
import { newSortableId } from "@holdfast/shared/domain/ids";
import { loadChunkIndex } from "../pipeline/chunk-index-loader.ts";
import { transferDisk } from "../pipeline/transfer-disk.ts";
import { openImageSource } from "../transport/image-source.ts";
import { newestFirst } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** What an image's only disk is called in its points. */
const imageDiskKey = "disk";

/** Backs up one image as a point of its own. */
export async function backUpImage(
  context: StandaloneContext,
  request: Request<"image-backup">,
): Promise<unknown> {
  const { signal, logger } = context;
  const { source, format, name } = request;
  const repository = await context.open(request);
  const startedMs = context.clock.now();
  const vmKey = imageKey(name);
  const parent = (await newestFirst(context, repository, vmKey))[0];
  const previous = parent?.disks.find(({ key }) => key === imageDiskKey)?.recordKey;
  await using reader = await openImageSource({ source, format, signal });
  context.emit({ type: "note", message: `Reading ${source}: ${reader.description}` });
  const takenAt = new Date(context.clock.now()).toISOString();
  const { recordKey, stats } = await transferDisk({
    repository,
    reader,
    diskKey: imageDiskKey,
    ...(previous === undefined ? {} : { previous }),
    index: await loadChunkIndex(repository, { logger, signal }),
    sampleShare: 0,
    // Not kept: what a killed backup stored, the next one finds by the index.
    saveCheckpoint: async () => undefined,
    onProgress: context.reportProgress(imageDiskKey),
    signal,
    logger,
  });
  const { sizeBytes } = reader;
  const pointId = newSortableId(context.clock.now(), context.random);
  const { rootKey } = await repository.writePoint(
    {
      pointId,
      vmKey,
      vmName: name,
      providerId: "image",
      jobId: newSortableId(context.clock.now(), context.random),
      fence: 0,
      takenAt,
      mode: "full",
      consistency: "crash",
      warnings: [],
      parent: parent && { pointId: parent.pointId, rootKey: parent.rootKey },
      metadata: {
        providerKind: "image",
        description: {
          name,
          uuid: "",
          memoryBytes: 0,
          vcpus: 0,
          architecture: "",
          firmware: "bios",
          disks: [
            {
              key: imageDiskKey,
              sizeBytes,
              bus: "",
              format: format ?? "raw",
              storage: "file",
              location: source,
              readOnly: false,
              shareable: false,
            },
          ],
          nics: [],
          tags: [],
        },
        excludedDisks: [],
        documents: {},
      },
      disks: [{ key: imageDiskKey, recordKey, mode: "full", reason: "" }],
    },
    { signal },
  );
  const { bytesRead, bytesNew, bytesStored } = stats;
  const sizes = { sizeBytes, bytesRead, bytesNew, bytesStored };
  return {
    point: { pointId, name, takenAt, rootKey, disks: [{ key: imageDiskKey, ...sizes }] },
    summary: {
      ...sizes,
      bytesScanned: sizeBytes,
      seconds: (context.clock.now() - startedMs) / 1000,
    },
  };
}

/** One image is one VM to the repository; its name may hold what an object's name may not. */
function imageKey(name: string): string {
  return `image-${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
}
