/**
 * The mover without a control plane: started by the CLI as a process, it does the one request that it reads from
 * stdin and answers with JSON lines on stdout (shared/contracts/standalone.ts). It ends when it is told to
 * (SIGTERM) and when the CLI that started it is gone (stdin ends): then nothing is committed.
 */
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import {
  type ImagePoint,
  type PointMetadata,
  type StandaloneLine,
  StandaloneRequest,
  standaloneResults,
  type VerifyReport,
} from "@holdfast/shared/contracts/standalone";
import { Failure, toFailureRecord } from "@holdfast/shared/domain/failure";
import { newSortableId } from "@holdfast/shared/domain/ids";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { createJsonLogger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import {
  createRepository,
  type PointSummary,
  type Repository,
} from "@holdfast/shared/repository/repository";
import { openObjectStore, probeStorage } from "@holdfast/shared/storage/open-object-store";
import { openRepositoryAt } from "./open-repository-at.ts";
import { loadChunkIndex } from "./pipeline/chunk-index-loader.ts";
import { restoreDisk } from "./pipeline/restore-disk.ts";
import { transferDisk } from "./pipeline/transfer-disk.ts";
import { verifyRepository } from "./pipeline/verify-repository.ts";
import { openImageSource } from "./transport/image-source.ts";
import { openImageTarget } from "./transport/image-target.ts";

type Request<Kind> = ReturnType<typeof StandaloneRequest.parse> & { readonly kind: Kind };

/** What an image's only disk is called in its points. */
const imageDiskKey = "disk";
const progressMs = 100;

const logger = createJsonLogger((line) => process.stderr.write(`${line}\n`));
const stop = new AbortController();
const cancel = (): void => stop.abort(new Failure("cancelled", { message: "cancelled" }));
process.on("SIGTERM", cancel);
// A terminal sends Ctrl-C to the CLI as well, and the CLI decides.
process.on("SIGINT", () => undefined);

const input = createInterface({ input: process.stdin });
input.once("line", (line) => void answer(line));
input.once("close", cancel);

async function answer(line: string): Promise<void> {
  try {
    const request = StandaloneRequest.parse(JSON.parse(line));
    const result = await perform(request);
    emit({ type: "result", result: standaloneResults[request.kind].parse(result) });
  } catch (error) {
    const failure = toFailureRecord(stop.signal.aborted ? stop.signal.reason : error);
    emit({ type: "failed", failure: { ...failure, causes: [...failure.causes] } });
    process.exitCode = 1;
  } finally {
    input.off("close", cancel);
    input.close();
    process.stdin.destroy();
  }
}

function emit(line: StandaloneLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function perform(request: ReturnType<typeof StandaloneRequest.parse>): Promise<unknown> {
  switch (request.kind) {
    case "repository-init": {
      const { url, passphrase } = request;
      const supports = await probeStorage(url, { signal: stop.signal });
      const store = await openObjectStore(url, { supports });
      const created = await createRepository({ store, passphrase, clock, random, logger });
      return { repositoryId: created.repositoryId, url };
    }
    case "image-backup":
      return await backUpImage(await open(request), request);
    case "image-points":
      return await listImagePoints(await open(request), request.name);
    case "image-restore":
      return await restoreImage(await open(request), request);
    case "image-metadata":
      return await readMetadata(await open(request), request.pointId);
    case "repository-verify":
      return await verify(await open(request), request);
    case "fetch-host-keys": {
      const { signal } = stop;
      // Only here: the other requests don't wait for the SSH client to be loaded.
      const { fetchHostKeys } = await import("./transport/ssh/fetch-host-keys.ts");
      const hostKeys = await fetchHostKeys(request.host, request.port, { signal });
      return { hostKeys };
    }
    default:
      return request satisfies never;
  }
}

async function open({ url, passphrase }: { url: string; passphrase: string }): Promise<Repository> {
  return await openRepositoryAt(url, { passphrase, clock, random, logger });
}

async function backUpImage(
  repository: Repository,
  { source, format, name }: Request<"image-backup">,
): Promise<unknown> {
  const { signal } = stop;
  const startedMs = clock.now();
  const vmKey = imageKey(name);
  const parent = (await newestFirst(repository, vmKey))[0];
  const previous = parent?.disks.find(({ key }) => key === imageDiskKey)?.recordKey;
  await using reader = await openImageSource({ source, format, signal });
  emit({ type: "note", message: `Reading ${source}: ${reader.description}` });
  const takenAt = new Date(clock.now()).toISOString();
  const { recordKey, stats } = await transferDisk({
    repository,
    reader,
    diskKey: imageDiskKey,
    ...(previous === undefined ? {} : { previous }),
    index: await loadChunkIndex(repository, { logger, signal }),
    sampleShare: 0,
    // Not kept: what a killed backup stored, the next one finds by the index.
    saveCheckpoint: async () => undefined,
    onProgress: reportProgress(imageDiskKey),
    signal,
    logger,
  });
  const { sizeBytes } = reader;
  const pointId = newSortableId(clock.now(), random);
  const { rootKey } = await repository.writePoint(
    {
      pointId,
      vmKey,
      vmName: name,
      providerId: "image",
      jobId: newSortableId(clock.now(), random),
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
    summary: { ...sizes, bytesScanned: sizeBytes, seconds: (clock.now() - startedMs) / 1000 },
  };
}

async function listImagePoints(
  repository: Repository,
  name: string | undefined,
): Promise<{ readonly points: readonly ImagePoint[] }> {
  const points = await newestFirst(repository);
  return {
    points: points
      .filter((point) => name === undefined || point.vmName === name)
      .map((point) => ({
        pointId: point.pointId,
        name: point.vmName,
        takenAt: point.takenAt,
        rootKey: point.rootKey,
        disks: point.disks.map(({ key, sizeBytes, bytesRead, bytesNew, bytesStored }) => ({
          key,
          sizeBytes,
          bytesRead,
          bytesNew,
          bytesStored,
        })),
      })),
  };
}

async function readMetadata(repository: Repository, pointId: string): Promise<PointMetadata> {
  const rootKey = await findRoot(repository, pointId);
  const point = await repository.readPoint(rootKey, { signal: stop.signal });
  const { providerKind, description, excludedDisks, documents } = point.metadata;
  return {
    pointId: point.pointId,
    name: point.vmName,
    takenAt: point.takenAt,
    providerKind,
    description: { ...description },
    disks: point.disks.map(({ key, sizeBytes }) => ({ key, sizeBytes })),
    excludedDisks: excludedDisks.map((disk) => ({ ...disk })),
    documents: { ...documents },
  };
}

async function restoreImage(
  repository: Repository,
  request: Request<"image-restore">,
): Promise<unknown> {
  const { signal } = stop;
  const startedMs = clock.now();
  const { pointId, output, format, overwrite } = request;
  const rootKey = request.rootKey ?? (await findRoot(repository, pointId));
  const point = await repository.readPoint(rootKey, { signal });
  const disk = chooseDisk(point, request.disk);
  const { sizeBytes } = disk;
  await using writer = await openImageTarget({ output, format, sizeBytes, overwrite, signal });
  await restoreDisk({
    repository,
    recordKey: disk.recordKey,
    digest: disk.digest,
    writer,
    onProgress: reportProgress(disk.key),
    signal,
    logger,
  });
  await writer.commit();
  const seconds = (clock.now() - startedMs) / 1000;
  const summary = { sizeBytes, bytesScanned: sizeBytes, bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  return { pointId: point.pointId, disk: disk.key, output, summary: { ...summary, seconds } };
}

async function verify(
  repository: Repository,
  { share, pointId }: Request<"repository-verify">,
): Promise<VerifyReport> {
  return await verifyRepository({
    repository,
    share,
    ...(pointId === undefined ? {} : { pointId }),
    onProgress: reportProgress("recovery points"),
    signal: stop.signal,
    logger,
  });
}

/** One image is one VM to the repository; its name may hold what an object's name may not. */
function imageKey(name: string): string {
  return `image-${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
}

async function newestFirst(repository: Repository, vmKey?: string): Promise<PointSummary[]> {
  const points: PointSummary[] = [];
  const { signal } = stop;
  const onUnreadable = ({ key, failure }: { key: string; failure: Failure }): void =>
    emit({ type: "warning", message: `${key} cannot be read: ${failure.message}` });
  const options = { signal, onUnreadable, ...(vmKey === undefined ? {} : { vmKey }) };
  for await (const point of repository.listPoints(options)) points.push(point);
  return points.sort((left, right) => (left.pointId < right.pointId ? 1 : -1));
}

async function findRoot(repository: Repository, pointId: string): Promise<string> {
  const found = (await newestFirst(repository)).find((point) => point.pointId === pointId);
  if (found !== undefined) return found.rootKey;
  throw new Failure("not-found", {
    message: `${repository.store.url} has no recovery point ${JSON.stringify(pointId)}; \`holdfast image points\` lists them`,
  });
}

/** By key, else by number from 0; without either the only disk there is. */
function chooseDisk<Disk extends { readonly key: string }>(
  { pointId, disks }: { readonly pointId: string; readonly disks: readonly Disk[] },
  wanted: string | undefined,
): Disk {
  const keys = disks.map(({ key }) => key).join(", ");
  const [only] = disks;
  if (wanted === undefined) {
    if (only !== undefined && disks.length === 1) return only;
    throw new Failure("input.invalid", { message: `say which --disk of ${pointId}: ${keys}` });
  }
  const byNumber = /^\d+$/.test(wanted) ? disks[Number(wanted)] : undefined;
  const disk = disks.find(({ key }) => key === wanted) ?? byNumber;
  if (disk !== undefined) return disk;
  throw new Failure("not-found", { message: `${pointId} has no disk ${wanted}; it has ${keys}` });
}

function reportProgress(
  disk: string,
): (now: { readonly bytesDone: number; readonly bytesTotal: number }) => void {
  let reportedMs = Number.NEGATIVE_INFINITY;
  return ({ bytesDone, bytesTotal }) => {
    const isLast = bytesDone === bytesTotal;
    if (!isLast && clock.now() - reportedMs < progressMs) return;
    reportedMs = clock.now();
    emit({ type: "progress", disk, bytesDone, bytesTotal });
  };
}
