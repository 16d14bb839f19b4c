import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import { corrupt } from "../format/bytes.ts";

/**
 * The root of a recovery point: small, sealed, and naming everything that the point needs. It is written last of the point's objects; what makes
 * it a point is an end of its session that names it. Its object's name carries point, job, fence, session and randomness.
 */
const DiskOfPoint = z.object({
  key: z.string().min(1).max(128),
  sizeBytes: z.int().min(0),
  recordKey: z.string().regex(/^disks\/[0-9a-f]{32}$/),
  /** The disk's digest in hexadecimal; the disk record must say the same. */
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  mode: z.enum(["full", "incremental"]),
  /** Why it was read in full although an incremental was asked for; empty otherwise. */
  reason: z.string().max(4000),
  bytesRead: z.int().min(0),
  bytesNew: z.int().min(0),
  bytesStored: z.int().min(0),
});
export type DiskOfPoint = z.infer<typeof DiskOfPoint>;

const Root = z.object({
  v: z.literal(1),
  pointId: z.string(),
  vmKey: z.string(),
  vmName: z.string().max(1024),
  providerId: z.string().max(256),
  jobId: z.string(),
  fence: z.int().min(0),
  takenAt: z.string().max(64),
  committedAt: z.string().max(64),
  mode: z.enum(["full", "incremental"]),
  consistency: z.enum(["application", "crash", "stopped"]),
  warnings: z.array(z.string().max(4000)).max(1000),
  /** The root of the point that this one was made from; it is not needed for a restore. */
  parentRootKey: z.string().max(512).optional(),
  parentPointId: z.string().max(128).optional(),
  disks: z.array(DiskOfPoint).max(1024),
  metadataKey: z.string().regex(/^metadata\/[0-9a-f]{32}$/),
  /** Of a copy: the root that it was made from, in another repository. */
  copiedFrom: z
    .object({ repositoryId: z.string().regex(/^[0-9a-f]{32}$/), rootKey: z.string().max(512) })
    .optional(),
});
export type Root = z.infer<typeof Root>;

export type PointSummary = Omit<Root, "v"> & { readonly rootKey: string };

const namePart = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** All attempts of one job at one fence share this; what follows is the session and random. */
export function attemptPrefix(root: Pick<Root, "vmKey" | "pointId" | "jobId" | "fence">): string {
  for (const [field, text] of Object.entries({
    vmKey: root.vmKey,
    pointId: root.pointId,
    jobId: root.jobId,
  })) {
    if (!namePart.test(text)) {
      throw new Failure("input.invalid", {
        message: `${field} ${JSON.stringify(text.slice(0, 140))} is not valid: use 1 to 128 letters, digits, dots, dashes and underscores`,
      });
    }
  }
  return `points/${root.vmKey}/${root.pointId}-${root.jobId}-${root.fence}-`;
}

export function encodeRoot(root: Root): Uint8Array {
  return Buffer.from(JSON.stringify(Root.parse(root)), "utf8");
}

/** Fails with `object.corrupt` also when the name is not the one that such a root carries. */
export function decodeRoot(bytes: Uint8Array, rootKey: string): Root {
  let raw: unknown;
  try {
    raw = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw corrupt(`${rootKey} is not JSON`, { key: rootKey, cause });
  }
  const root = Root.safeParse(raw);
  if (!root.success) throw corrupt(`${rootKey}: ${root.error.message}`, { key: rootKey });
  const prefix = attemptPrefix(root.data);
  if (!rootKey.startsWith(prefix) || !/^[0-9a-f]{32}$/.test(rootKey.slice(prefix.length))) {
    throw corrupt(`${rootKey} has the contents of another point`, { key: rootKey });
  }
  return root.data;
}

export function summarize({ v: _, ...root }: Root, rootKey: string): PointSummary {
  return { ...root, rootKey };
}

/** Of several attempts at one point: the highest fence, then the smallest name. Every reader decides alike. */
export function chooseAttempt(attempts: readonly PointSummary[]): PointSummary | undefined {
  return attempts.toSorted(
    (left, right) => right.fence - left.fence || (left.rootKey < right.rootKey ? -1 : 1),
  )[0];
}
