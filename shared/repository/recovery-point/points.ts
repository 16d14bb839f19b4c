import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { Failure, isFailure } from "../../domain/failure.ts";
import type { Clock } from "../../ports/clock.ts";
import type { VmMetadata } from "../../ports/driver.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import type { DiskRecords } from "../extent-map/disk-records.ts";
import { corrupt, sameBytes, toHex } from "../format/bytes.ts";
import type { RepositoryObjects } from "../objects.ts";
import type { ListPointsOptions, NewPoint, Point } from "../repository.ts";
import { isCommitted, sessionOfRoot } from "../session/session-state.ts";
import type { Session, Sessions } from "../session/sessions.ts";
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
    session: Session,
    metadata: VmMetadata,
    options?: CallOptions,
  ) => Promise<{ readonly metadataKey: string }>;
  readonly write: (
    session: Session,
    point: NewPoint,
    options?: CallOptions,
  ) => Promise<{ readonly rootKey: string }>;
  readonly read: (rootKey: string, options?: CallOptions) => Promise<Point>;
  readonly readSummary: (rootKey: string, options?: CallOptions) => Promise<PointSummary>;
  readonly list: (options?: ListPointsOptions) => AsyncIterable<PointSummary>;
};

type Parts = {
  readonly store: ObjectStore;
  readonly objects: RepositoryObjects;
  readonly sessions: Sessions;
  readonly diskRecords: DiskRecords;
  readonly clock: Clock;
  readonly logger: Logger;
};

const rootsInFlight = 8;

export function createPoints(parts: Parts): Points {
  const { store, objects, sessions } = parts;

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
      const isOurs =
        isFailure(error, "object.corrupt") ||
        isFailure(error, "input.invalid") ||
        isFailure(error, "repository.epoch-unknown");
      if (!isOurs) throw error;
      parts.logger.warn("recovery point unreadable", { key: rootKey, reason: error.message });
      options.onUnreadable?.({ key: rootKey, failure: error });
      return undefined;
    }
  }

  async function putMetadata(
    session: Session,
    metadata: VmMetadata,
    options?: CallOptions,
  ): Promise<{ readonly metadataKey: string }> {
    const bytes = Buffer.from(JSON.stringify(metadata), "utf8");
    return { metadataKey: await session.objects.putNew("metadata", "vm-metadata", bytes, options) };
  }

  /** What earlier attempts of this session and job at this fence have put; those that are points already first. */
  async function findEarlier(
    session: Session,
    point: NewPoint,
    options: CallOptions,
  ): Promise<readonly PointSummary[]> {
    const found: PointSummary[] = [];
    for await (const { key } of store.list(attemptPrefix(point), options)) {
      if (sessionOfRoot(key)?.sessionId !== session.sessionId) continue;
      const root = await tryRoot(key, options);
      // Ids may hold dashes, so another attempt's name can begin like this one's: what counts is inside.
      if (root !== undefined && isSameAttempt(root, point)) found.push(root);
    }
    if (found.length === 0) return [];
    const states = await sessions.list({ ...options, sessionIds: [session.sessionId] });
    const rank = ({ rootKey }: PointSummary): number => (isCommitted(rootKey, states) ? 0 : 1);
    return found.sort((left, right) => rank(left) - rank(right));
  }

  async function hasContents(
    found: PointSummary,
    point: NewPoint,
    disks: readonly DiskOfPoint[],
    options: CallOptions,
  ): Promise<boolean> {
    const { takenAt, mode, consistency, vmKey, parent, metadata } = point;
    const { parentRootKey } = found;
    const its = [found.takenAt, found.mode, found.consistency, found.vmKey, parentRootKey];
    if (!isDeepStrictEqual(its, [takenAt, mode, consistency, vmKey, parent?.rootKey])) return false;
    if (!isDeepStrictEqual(found.disks, disks)) return false;
    if ("metadataKey" in metadata) return found.metadataKey === metadata.metadataKey;
    const stored = await objects.get(found.metadataKey, "vm-metadata", options);
    return sameBytes(stored, Buffer.from(JSON.stringify(metadata), "utf8"));
  }

  async function putRoot(
    session: Session,
    point: NewPoint,
    disks: readonly DiskOfPoint[],
    options: CallOptions,
  ): Promise<string> {
    const { metadataKey } =
      "metadataKey" in point.metadata
        ? point.metadata
        : await putMetadata(session, point.metadata, options);
    const { parent, metadata: _, ...rest } = point;
    const root: Root = {
      ...rest,
      v: 1,
      warnings: [...point.warnings],
      committedAt: new Date(parts.clock.now()).toISOString(),
      disks: [...disks],
      metadataKey,
      ...(parent === undefined
        ? {}
        : { parentPointId: parent.pointId, parentRootKey: parent.rootKey }),
    };
    const rootKey = session.newRootName(attemptPrefix(point));
    await objects.put(rootKey, "recovery-point", encodeRoot(root), options);
    return rootKey;
  }

  async function write(
    session: Session,
    point: NewPoint,
    options: CallOptions = {},
  ): Promise<{ readonly rootKey: string }> {
    const disks: DiskOfPoint[] = [];
    for (const disk of point.disks) disks.push(await describeDisk(parts, disk, options));
    const [earlier] = await findEarlier(session, point, options);
    if (earlier !== undefined && !(await hasContents(earlier, point, disks, options))) {
      throw new Failure("conflict", {
        message: `${earlier.rootKey} was written by an earlier attempt of this job, with other contents`,
      });
    }
    const rootKey = earlier?.rootKey ?? (await putRoot(session, point, disks, options));
    try {
      await session.commit(rootKey, options);
      return { rootKey };
    } catch (error) {
      if (!isFailure(error, "session.ended")) throw error;
      // Another attempt of this job may have come first, with the same point.
      const [first] = await findEarlier(session, point, options);
      if (first === undefined || first.rootKey === rootKey) throw error;
      if (!(await hasContents(first, point, disks, options))) throw error;
      await session.commit(first.rootKey, options);
      return { rootKey: first.rootKey };
    }
  }

  async function read(rootKey: string, options?: CallOptions): Promise<Point> {
    const root = await readRoot(rootKey, options);
    const metadata = decodeMetadata(
      await objects.get(root.metadataKey, "vm-metadata", options),
      root.metadataKey,
    );
    return { ...summarize(root, rootKey), metadata };
  }

  /** Names of roots that are points: by VM, in the order of names. */
  async function committedRoots(
    options: ListPointsOptions,
  ): Promise<ReadonlyMap<string, readonly string[]>> {
    const { vmKey, onUncommitted } = options;
    const rootKeys: string[] = [];
    for await (const { key } of store.list(
      vmKey === undefined ? "points/" : `points/${vmKey}/`,
      options,
    )) {
      rootKeys.push(key);
    }
    const ids = new Set(rootKeys.map((key) => sessionOfRoot(key)?.sessionId ?? ""));
    ids.delete("");
    // After the roots: what was committed when the first was listed is found.
    const states = await sessions.list(
      vmKey === undefined ? options : { ...options, sessionIds: [...ids] },
    );
    const condemned = await condemnedRoots(options);
    const committed = rootKeys.filter((key) => {
      if (isCommitted(key, states)) return !condemned.has(key);
      onUncommitted?.(key);
      return false;
    });
    return Map.groupBy(committed, (key) => key.slice(0, key.lastIndexOf("/")));
  }

  /** A list that cannot be read must not keep anyone from restoring: what is about to go is then shown once more. */
  async function condemnedRoots(options: CallOptions): Promise<ReadonlySet<string>> {
    try {
      return (await sessions.condemned.load(options)).roots;
    } catch (error) {
      if (!isFailure(error, "object.corrupt")) throw error;
      parts.logger.warn("condemned list unreadable", { reason: error.message });
      return new Set();
    }
  }

  async function* list(options: ListPointsOptions = {}): AsyncGenerator<PointSummary> {
    // A point's id may be another's beginning: all attempts of a VM are looked at together.
    for (const rootKeys of (await committedRoots(options)).values()) {
      const attempts: PointSummary[] = [];
      for (let at = 0; at < rootKeys.length; at += rootsInFlight) {
        const some = rootKeys.slice(at, at + rootsInFlight);
        const read = await Promise.all(some.map((key) => tryRoot(key, options)));
        attempts.push(...read.filter((root) => root !== undefined));
      }
      yield* decide(attempts);
    }
  }

  return {
    putMetadata,
    write,
    read,
    readSummary: async (rootKey, options) => summarize(await readRoot(rootKey, options), rootKey),
    list,
  };
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
