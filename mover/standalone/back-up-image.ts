import { createHash } from "node:crypto";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { newSortableId } from "@holdfast/shared/domain/ids";
import type { VmMetadata } from "@holdfast/shared/ports/driver";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { standaloneHolder, withSession } from "../hold-session.ts";
import { createChunkIndexLoader, type SessionIndex } from "../pipeline/chunk-index-loader.ts";
import type { TransferMode } from "../pipeline/transfer-checkpoint.ts";
import { transferDisk } from "../pipeline/transfer-disk.ts";
import { readChangedRanges, withChanges } from "../transport/changed-ranges.ts";
import { type ImageSource, openImageSource } from "../transport/image-source.ts";
import { throttledReader } from "../transport/throttled-disk.ts";
import { newestFirst } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** What an image's only disk is called in its points. */
const imageDiskKey = "disk";
/** Of what is called unchanged or zero; see `sampleShare` of backup options. */
const sampleShareDefault = 0.01;

/**
 * Backs up one image as a point of its own. With a base and what changed since, only that is read and the rest is taken over from the base, but
 * for samples; where these show that the list of changes is wrong, the image is read in full and the point says why.
 */
export async function backUpImage(
  context: StandaloneContext,
  request: Request<"image-backup">,
): Promise<unknown> {
  checkRequest(request);
  const repository = await context.open(request);
  const startedMs = context.clock.now();
  const known = await newestFirst(context, repository, imageKey(request.name));
  const base = chooseBase(known, request);
  return await withSession(
    {
      ...context,
      repository,
      kind: "backup",
      holder: standaloneHolder(),
      pins: base === undefined ? [] : [base.rootKey],
    },
    (session, signal) =>
      backUp({ ...context, signal }, request, { repository, session, base, startedMs }),
  );
}

function checkRequest({ base, changes, bitmap }: Request<"image-backup">): void {
  const given = [changes, bitmap].filter((choice) => choice !== undefined).length;
  if (given === (base === undefined ? 0 : 1)) return;
  throw new Failure("input.invalid", {
    message:
      base === undefined
        ? "a list of changes or a bitmap says what changed since a recovery point: name it with --base"
        : "with --base goes one of --changes and --bitmap; without either the image is read in full anyway, and what is stored already is not stored again",
  });
}

/** The point that is built on. Without a base named: the newest, whose chunks save storing them again. */
function chooseBase(
  known: readonly PointSummary[],
  { base, name }: Request<"image-backup">,
): PointSummary | undefined {
  if (base === undefined || base === "latest") return known[0];
  const found = known.find(({ pointId }) => pointId === base);
  if (found !== undefined) return found;
  throw new Failure("not-found", {
    message: `there is no recovery point ${JSON.stringify(base)} of ${JSON.stringify(name)}; \`holdfast image points\` lists them`,
  });
}

type Work = {
  readonly repository: Repository;
  readonly session: Session;
  /** Found before the session began. */
  readonly base: PointSummary | undefined;
  readonly startedMs: number;
};

async function backUp(
  context: StandaloneContext,
  request: Request<"image-backup">,
  { repository, session, base, startedMs }: Work,
): Promise<unknown> {
  const { signal } = context;
  const isUsable =
    base !== undefined &&
    (await repository.sessions.isUsablePoint(session, base.rootKey, { signal }));
  const parent = isUsable ? base : undefined;
  const takenAt = new Date(context.clock.now()).toISOString();
  const { recordKey, stats, mode, reason, sizeBytes } = await transferImage({
    context,
    request,
    repository,
    session,
    previous: parent?.disks.find(({ key }) => key === imageDiskKey)?.recordKey,
    unusable: base === undefined || isUsable ? "" : `${base.pointId} is being removed`,
  });
  const pointId = newSortableId(context.clock.now(), context.random);
  const { rootKey } = await repository.writePoint(
    session,
    {
      pointId,
      vmKey: imageKey(request.name),
      vmName: request.name,
      providerId: "image",
      jobId: newSortableId(context.clock.now(), context.random),
      fence: 0,
      takenAt,
      mode,
      consistency: "crash",
      warnings: [],
      parent: parent && { pointId: parent.pointId, rootKey: parent.rootKey },
      metadata: describeImage(request, sizeBytes),
      disks: [{ key: imageDiskKey, recordKey, mode, reason }],
    },
    { signal },
  );
  const { bytesRead, bytesNew, bytesStored } = stats;
  const sizes = { sizeBytes, bytesRead, bytesNew, bytesStored };
  const disks = [{ key: imageDiskKey, ...sizes, mode, reason }];
  return {
    point: { pointId, name: request.name, takenAt, rootKey, disks },
    summary: {
      ...sizes,
      bytesScanned: sizeBytes,
      seconds: (context.clock.now() - startedMs) / 1000,
    },
  };
}

type Transfer = {
  readonly context: StandaloneContext;
  readonly request: Request<"image-backup">;
  readonly repository: Repository;
  readonly session: Session;
  readonly previous: string | undefined;
  /** Why the base can't be built on; empty where it can. */
  readonly unusable: string;
};

/** Each time a sample shows that what the source says is not true, less of it is believed. */
async function transferImage(t: Transfer) {
  const { context, request, previous } = t;
  const index = await createChunkIndexLoader(t.repository, context).load(t.session, context.signal);
  let mode: TransferMode = "full";
  let reason = "";
  if (request.base !== undefined) {
    if (previous !== undefined) mode = "incremental";
    else reason = t.unusable || "there is no earlier recovery point to build on";
  }
  for (;;) {
    try {
      const done = await transferOnce(t, mode, index);
      return { ...done, mode: mode === "incremental" ? mode : ("full" as const), reason };
    } catch (error) {
      if (!isFailure(error, "changes.unknown") || mode === "all") throw error;
      reason = error.message;
      context.emit({
        type: "warning",
        message: `what is said of changes and holes cannot be trusted: ${reason}; reading ${mode === "full" ? "everything" : "the image in full"}`,
      });
      mode = mode === "incremental" ? "full" : "all";
    }
  }
}

async function transferOnce(t: Transfer, mode: TransferMode, index: SessionIndex) {
  const { context, request, repository, session, previous } = t;
  const { signal, logger } = context;
  const { source } = request;
  await using reader = await openSource(request, mode, signal);
  context.emit({ type: "note", message: `Reading ${source}: ${reader.description}` });
  const transfer = (known: SessionIndex | undefined) =>
    transferDisk({
      repository,
      session,
      reader: throttledReader(reader, context.limits.disk),
      diskKey: imageDiskKey,
      ...(previous === undefined ? {} : { previous }),
      mode,
      ...known,
      sampleShare: request.sampleShare ?? (request.base === undefined ? 0 : sampleShareDefault),
      // Not kept: what a killed backup stored, the next one finds by the index.
      saveCheckpoint: async () => undefined,
      onProgress: context.reportProgress(imageDiskKey),
      signal,
      logger,
    });
  const done = await transfer(index).catch((error: unknown) => {
    if (!isFailure(error, "index.stale")) throw error;
    context.emit({ type: "warning", message: error.message });
    return transfer(undefined);
  });
  return { ...done, sizeBytes: reader.sizeBytes };
}

/** Only an incremental hears of changes: the others are to read what they call unchanged. */
async function openSource(
  { source, format, changes, bitmap }: Request<"image-backup">,
  mode: TransferMode,
  signal: AbortSignal,
): Promise<ImageSource> {
  if (mode !== "incremental") return await openImageSource({ source, format, signal });
  if (bitmap !== undefined) return await openImageSource({ source, format, bitmap, signal });
  const reader = await openImageSource({ source, format, signal });
  try {
    const ranges = await readChangedRanges(changes ?? "", reader.sizeBytes);
    return withChanges(reader, ranges);
  } catch (error) {
    await reader[Symbol.asyncDispose]();
    throw error;
  }
}

function describeImage(
  { name, source, format }: Request<"image-backup">,
  sizeBytes: number,
): VmMetadata {
  const disk = {
    key: imageDiskKey,
    sizeBytes,
    bus: "",
    format: format ?? "raw",
    storage: "file",
    location: source,
    readOnly: false,
    shareable: false,
  } as const;
  return {
    providerKind: "image",
    description: {
      name,
      uuid: "",
      memoryBytes: 0,
      vcpus: 0,
      architecture: "",
      firmware: "bios",
      disks: [disk],
      nics: [],
      tags: [],
    },
    excludedDisks: [],
    documents: {},
  };
}

/** One image is one VM to the repository; its name may hold what an object's name may not. */
function imageKey(name: string): string {
  return `image-${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
}
