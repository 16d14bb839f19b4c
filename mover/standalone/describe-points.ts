import type { ImagePoint, PointMetadata } from "@holdfast/shared/contracts/standalone";
import { findRoot, newestFirst } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function listImagePoints(
  context: StandaloneContext,
  request: Request<"image-points">,
): Promise<{ readonly points: readonly ImagePoint[] }> {
  const points = await newestFirst(context, await context.open(request));
  return {
    points: points
      .filter((point) => request.name === undefined || point.vmName === request.name)
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

export async function readMetadata(
  context: StandaloneContext,
  request: Request<"image-metadata">,
): Promise<PointMetadata> {
  const repository = await context.open(request);
  const rootKey = await findRoot(context, repository, request.pointId);
  const point = await repository.readPoint(rootKey, { signal: context.signal });
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
