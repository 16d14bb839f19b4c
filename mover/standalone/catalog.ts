import { CatalogPoint } from "@holdfast/shared/contracts/standalone";
import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { PointSummary, Repository } from "@holdfast/shared/repository/repository";
import { standaloneHolder, withReadSession } from "../hold-session.ts";
import { isUnreadable } from "../pipeline/prepare-leaf.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

type Counts = { points: number; images: number; unreadable: number };

/** Gives out what a control plane lists of each point that counts: of several attempts at one, the one that every reader takes. */
export async function readCatalog(
  context: StandaloneContext,
  request: Request<"repository-catalog">,
): Promise<Counts> {
  const { clock, logger } = context;
  const repository = await context.open(request);
  const held = { kind: "restore", holder: standaloneHolder(), pins: [] } as const;
  const onNoSession = (message: string): void => context.emit({ type: "warning", message });
  return await withReadSession(
    { ...held, repository, clock, logger, signal: context.signal, onNoSession },
    (_session, signal) => readAll({ ...context, signal }, repository),
  );
}

async function readAll(context: StandaloneContext, repository: Repository): Promise<Counts> {
  const { signal } = context;
  const counts = { points: 0, images: 0, unreadable: 0 };
  const refuse = (key: string, reason: string): void => {
    counts.unreadable += 1;
    context.emit({ type: "warning", message: `${key} cannot be imported: ${reason}` });
  };
  const onUnreadable = ({ key, failure }: { key: string; failure: Failure }): void =>
    refuse(key, failure.message);
  for await (const summary of repository.listPoints({ signal, onUnreadable })) {
    try {
      const { metadata } = await repository.readPoint(summary.rootKey, { signal });
      if (metadata.providerKind === "image") {
        counts.images += 1;
        continue;
      }
      const point = CatalogPoint.safeParse(toCatalog(summary, metadata.description));
      if (!point.success) {
        refuse(summary.rootKey, `it is of another release: ${point.error.message}`);
        continue;
      }
      counts.points += 1;
      context.emit({ type: "point", point: point.data });
    } catch (error) {
      // One that was removed since it was listed is no point any more.
      if (isFailure(error, "object.not-found") && (await isGone(repository, summary, signal))) {
        continue;
      }
      if (!isUnreadable(error)) throw error;
      refuse(summary.rootKey, error.message);
    }
  }
  return counts;
}

async function isGone(
  { store }: Repository,
  { rootKey }: PointSummary,
  signal: AbortSignal,
): Promise<boolean> {
  return (await store.head(rootKey, { signal })) === undefined;
}

function toCatalog(summary: PointSummary, description: unknown) {
  const { pointId, vmKey: vmId, vmName, providerId, rootKey, jobId, fence } = summary;
  const { takenAt, committedAt, mode, consistency, warnings, parentPointId } = summary;
  const disks = summary.disks.map(({ recordKey: _record, digest: _digest, ...disk }) => disk);
  return {
    point: {
      ...{ pointId, vmId, vmName, providerId, rootKey, jobId },
      ...{ takenAt, committedAt, mode, consistency, warnings, disks },
      ...(parentPointId === undefined ? {} : { parentPointId }),
    },
    fence,
    description,
  };
}
