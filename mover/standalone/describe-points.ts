import type { ImagePoint, PointMetadata } from "@holdfast/shared/contracts/standalone";
import { readKnownDamage } from "@holdfast/shared/repository/pack/damage";
import { findRoot, newestFirst } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function listImagePoints(
  context: StandaloneContext,
  request: Request<"image-points">,
): Promise<{ readonly points: readonly ImagePoint[] }> {
  const repository = await context.open(request);
  const points = await newestFirst(context, repository);
  const damage = await readKnownDamage(repository, { signal: context.signal });
  return {
    points: points
      .filter((point) => request.name === undefined || point.vmName === request.name)
      .map((point) => ({
        pointId: point.pointId,
        name: point.vmName,
        takenAt: point.takenAt,
        rootKey: point.rootKey,
        ...describeDamage(damage.points.get(point.rootKey)),
        disks: point.disks.map(({ key, sizeBytes, mode, reason, ...disk }) => ({
          key,
          sizeBytes,
          mode,
          reason,
          bytesRead: disk.bytesRead,
          bytesNew: disk.bytesNew,
          bytesStored: disk.bytesStored,
        })),
      })),
  };
}

function describeDamage(
  found: { readonly bytesDamaged: number; readonly metadata: boolean } | undefined,
): Pick<ImagePoint, "damage"> {
  if (found === undefined) return {};
  return { damage: { bytesLost: found.bytesDamaged, isMetadataLost: found.metadata } };
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
