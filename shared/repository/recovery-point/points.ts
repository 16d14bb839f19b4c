import { z } from "zod";
import { Failure, isFailure } from "../../domain/failure.ts";
import type { Clock } from "../../ports/clock.ts";
import type { VmMetadata } from "../../ports/driver.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import type { RandomBytes } from "../../ports/random.ts";
import type { DiskRecords } from "../extent-map/disk-records.ts";
import { corrupt, toHex } from "../format/bytes.ts";
import type { RepositoryObjects } from "../objects.ts";
import type { ListPointsOptions, NewPoint, Point } from "../repository.ts";
import {
  attemptPrefix,
  chooseAttempt,
  type DiskOfPoint,
  decodeRoot,
  encodeRoot,
  type PointSummary,
  type Root,
  summarize,
} from "./point.ts";

export type Points = {
  readonly putMetadata: (
    metadata: VmMetadata,
    options?: CallOptions,
  ) => Promise<{ readonly metadataKey: string }>;
  readonly write: (point: NewPoint, options?: CallOptions) => Promise<{ readonly rootKey: string }>;
  readonly read: (rootKey: string, options?: CallOptions) => Promise<Point>;
  readonly list: (options?: ListPointsOptions) => AsyncIterable<PointSummary>;
};

type Parts = {
  readonly store: ObjectStore;
  readonly objects: RepositoryObjects;
  readonly diskRecords: DiskRecords;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly logger: Logger;
};

export function createPoints(parts: Parts): Points {
  const { store, objects, random } = parts;

  async function readRoot(rootKey: string, options?: CallOptions): Promise<Root> {
    return decodeRoot(await objects.get(rootKey, "recovery-point", options), rootKey);
  }

  /** Undefined for what is damaged, foreign, or removed since it was listed. */
  async function tryRoot(
    rootKey: string,
    options: ListPointsOptions,
  ): Promise<PointSummary | undefined> {
    try {
      return summarize(await readRoot(rootKey, options), rootKey);
    } catch (error) {
      if (isFailure(error, "object.not-found")) return undefined;
      if (!isFailure(error, "object.corrupt") && !isFailure(error, "input.invalid")) throw error;
      parts.logger.warn("recovery point unreadable", { key: rootKey, reason: error.message });
      options.onUnreadable?.({ key: rootKey, failure: error });
      return undefined;
    }
  }

  async function putMetadata(
    metadata: VmMetadata,
    options?: CallOptions,
  ): Promise<{ readonly metadataKey: string }> {
    const bytes = Buffer.from(JSON.stringify(metadata), "utf8");
    return { metadataKey: await objects.putNew("metadata", "vm-metadata", bytes, options) };
  }

  async function write(
    point: NewPoint,
    options: CallOptions = {},
  ): Promise<{ readonly rootKey: string }> {
    const prefix = attemptPrefix(point);
    const earlier: PointSummary[] = [];
    for await (const { key } of store.list(prefix, options)) {
      const found = await tryRoot(key, options);
      // Ids may hold dashes, so another attempt's name can begin like this one's: what counts is inside.
      if (found !== undefined && isSameAttempt(found, point)) earlier.push(found);
    }
    const taken = chooseAttempt(earlier);
    if (taken !== undefined) return { rootKey: taken.rootKey };
    const disks: DiskOfPoint[] = [];
    for (const disk of point.disks) disks.push(await describeDisk(parts, disk, options));
    const { metadataKey } =
      "metadataKey" in point.metadata ? point.metadata : await putMetadata(point.metadata, options);
    const { parent, metadata: _, ...rest } = point;
    const root: Root = {
      ...rest,
      v: 1,
      warnings: [...point.warnings],
      committedAt: new Date(parts.clock.now()).toISOString(),
      disks,
      metadataKey,
      ...(parent === undefined
        ? {}
        : { parentPointId: parent.pointId, parentRootKey: parent.rootKey }),
    };
    const rootKey = `${prefix}${toHex(random(8))}`;
    await objects.put(rootKey, "recovery-point", encodeRoot(root), options);
    return { rootKey };
  }

  async function read(rootKey: string, options?: CallOptions): Promise<Point> {
    const root = await readRoot(rootKey, options);
    const metadata = decodeMetadata(
      await objects.get(root.metadataKey, "vm-metadata", options),
      root.metadataKey,
    );
    return { ...summarize(root, rootKey), metadata };
  }

  async function* list(options: ListPointsOptions = {}): AsyncGenerator<PointSummary> {
    const prefix = options.vmKey === undefined ? "points/" : `points/${options.vmKey}/`;
    // Attempts at one point lie side by side in the order of names, but a point's id may be another's beginning:
    // all attempts of a VM are looked at together.
    let folder = "";
    let attempts: PointSummary[] = [];
    for await (const { key } of store.list(prefix, options)) {
      const its = key.slice(0, key.lastIndexOf("/"));
      if (its !== folder) {
        yield* decide(attempts);
        attempts = [];
        folder = its;
      }
      const found = await tryRoot(key, options);
      if (found !== undefined) attempts.push(found);
    }
    yield* decide(attempts);
  }

  return { putMetadata, write, read, list };
}

function isSameAttempt(found: PointSummary, point: NewPoint): boolean {
  return (
    found.pointId === point.pointId && found.jobId === point.jobId && found.fence === point.fence
  );
}

function* decide(attempts: readonly PointSummary[]): Generator<PointSummary> {
  const byPoint = Map.groupBy(attempts, ({ pointId }) => pointId);
  for (const pointId of [...byPoint.keys()].sort()) {
    const chosen = chooseAttempt(byPoint.get(pointId) ?? []);
    if (chosen !== undefined) yield chosen;
  }
}

/** Reads the disk's record before the point refers to it: nothing is committed that is not there. */
async function describeDisk(
  parts: Parts,
  disk: NewPoint["disks"][number],
  options: CallOptions,
): Promise<DiskOfPoint> {
  const record = await parts.diskRecords.read(disk.recordKey, options);
  if (record.diskKey !== disk.key) {
    throw new Failure("input.invalid", {
      message: `${disk.recordKey} is the record of disk ${record.diskKey}, not of ${disk.key}`,
    });
  }
  return { ...disk, ...record.stats, sizeBytes: record.sizeBytes, digest: toHex(record.digest) };
}

const VmMetadataShape = z.looseObject({
  providerKind: z.string(),
  description: z.looseObject({ name: z.string(), disks: z.array(z.looseObject({})) }),
  excludedDisks: z.array(z.looseObject({ key: z.string(), sizeBytes: z.number() })),
  documents: z.record(z.string(), z.string()),
});

function decodeMetadata(bytes: Uint8Array, key: string): VmMetadata {
  try {
    // Authenticated, so written by a mover of ours; the shape guards against another release's.
    const raw: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    return VmMetadataShape.parse(raw) as unknown as VmMetadata;
  } catch (cause) {
    throw corrupt(`${key} is not VM metadata`, { key, cause });
  }
}
