import { createHash } from "node:crypto";
import { isFailure } from "@holdfast/shared/domain/failure";
import { newSortableId } from "@holdfast/shared/domain/ids";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { standaloneHolder, withSession } from "../hold-session.ts";
import { createChunkIndexLoader, type SessionIndex } from "../pipeline/chunk-index-loader.ts";
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
  const repository = await context.open(request);
  const startedMs = context.clock.now();
  const newest = (await newestFirst(context, repository, imageKey(request.name)))[0];
  return await withSession(
    {
      ...context,
      repository,
      kind: "backup",
      holder: standaloneHolder(),
      pins: newest === undefined ? [] : [newest.rootKey],
    },
    (session, signal) =>
      backUp({ ...context, signal }, request, { repository, session, newest, startedMs }),
  );
}

type Work = {
  readonly repository: Repository;
  readonly session: Session;
  /** The image's newest point, before the session began. */
  readonly newest: PointSummary | undefined;
  readonly startedMs: number;
};

async function backUp(
  context: StandaloneContext,
  request: Request<"image-backup">,
  { repository, session, newest, startedMs }: Work,
): Promise<unknown> {
  const { signal, logger } = context;
  const { source, format, name } = request;
  const isUsable =
    newest !== undefined &&
    (await repository.sessions.isUsablePoint(session, newest.rootKey, { signal }));
  const parent = isUsable ? newest : undefined;
  const previous = parent?.disks.find(({ key }) => key === imageDiskKey)?.recordKey;
  const indexLoader = createChunkIndexLoader(repository, { logger });
  let index: SessionIndex | undefined = await indexLoader.load(session, signal);
  await using reader = await openImageSource({ source, format, signal });
  context.emit({ type: "note", message: `Reading ${source}: ${reader.description}` });
  const takenAt = new Date(context.clock.now()).toISOString();
  const transfer = () =>
    transferDisk({
      repository,
      session,
      reader,
      diskKey: imageDiskKey,
      ...(previous === undefined ? {} : { previous }),
      ...index,
      sampleShare: 0,
      // Not kept: what a killed backup stored, the next one finds by the index.
      saveCheckpoint: async () => undefined,
      onProgress: context.reportProgress(imageDiskKey),
      signal,
      logger,
    });
  const { recordKey, stats } = await transfer().catch((error: unknown) => {
    if (!isFailure(error, "index.stale")) throw error;
    context.emit({ type: "warning", message: error.message });
    index = undefined;
    return transfer();
  });
  const { sizeBytes } = reader;
  const pointId = newSortableId(context.clock.now(), context.random);
  const { rootKey } = await repository.writePoint(
    session,
    {
      pointId,
      vmKey: imageKey(name),
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
