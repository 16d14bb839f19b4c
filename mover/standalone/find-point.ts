import { Failure } from "@holdfast/shared/domain/failure";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import type { StandaloneContext } from "./standalone-context.ts";

/** Every point of the repository, or of one VM; what cannot be read is told to the CLI. */
export async function newestFirst(
  context: StandaloneContext,
  repository: Repository,
  vmKey?: string,
): Promise<PointSummary[]> {
  const points: PointSummary[] = [];
  const { signal } = context;
  const onUnreadable = ({ key, failure }: { key: string; failure: Failure }): void =>
    context.emit({ type: "warning", message: `${key} cannot be read: ${failure.message}` });
  const options = { signal, onUnreadable, ...(vmKey === undefined ? {} : { vmKey }) };
  for await (const point of repository.listPoints(options)) points.push(point);
  return points.sort((left, right) => (left.pointId < right.pointId ? 1 : -1));
}

/** Fails with `not-found`. */
export async function findRoot(
  context: StandaloneContext,
  repository: Repository,
  pointId: string,
): Promise<string> {
  const found = (await newestFirst(context, repository)).find((point) => point.pointId === pointId);
  if (found !== undefined) return found.rootKey;
  throw new Failure("not-found", {
    message: `${repository.store.url} has no recovery point ${JSON.stringify(pointId)}; \`holdfast image points\` lists them`,
  });
}

/** By key, else by number from 0; without either the only disk there is. */
export function chooseDisk<Disk extends { readonly key: string }>(
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
