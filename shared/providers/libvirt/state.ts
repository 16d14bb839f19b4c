import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import type { BackupSession, ChangeAnchor } from "../../ports/driver.ts";

/** What the driver writes into sessions, anchors and ledger entries, and reads back from them. */
export const Layer = z.object({ path: z.string(), format: z.enum(["raw", "qcow2"]) });
export type Layer = z.infer<typeof Layer>;

export const RbdReference = z.object({
  image: z.string(),
  configFile: z.string().optional(),
  user: z.string().optional(),
  monitors: z.array(z.string()).optional(),
});

/** How a disk of a session is read. */
export const DiskState = z.discriminatedUnion("kind", [
  /** Images that are frozen below an overlay; `changes`: the top one holds what changed since the last point. */
  z.object({ kind: z.literal("overlay"), layers: z.array(Layer).min(1), changes: z.boolean() }),
  /** An export of libvirt's own backup job. */
  z.object({ kind: z.literal("job-export"), incremental: z.boolean() }),
  z.object({
    kind: z.literal("rbd"),
    rbd: RbdReference,
    snapshot: z.string(),
    from: z.string().optional(),
  }),
  /** The image of a stopped VM, watched: `changed` is its state when the session began. */
  z.object({
    kind: z.literal("stopped-image"),
    layers: z.array(Layer).min(1),
    bitmap: z.string().optional(),
    changed: z.string(),
  }),
]);
export type DiskState = z.infer<typeof DiskState>;

export const SessionState = z.object({
  /** The job's own folder on the host: sockets, scratch files. */
  folder: z.string(),
  /** Of libvirt's backup job. */
  socket: z.string().optional(),
  /** Folders whose free space decides whether the job may go on. */
  spaceFolders: z.array(z.string()),
  scratchBytesMin: z.number(),
  disks: z.record(z.string(), DiskState),
  excluded: z.array(z.object({ key: z.string(), sizeBytes: z.number(), reason: z.string() })),
});
export type SessionState = z.infer<typeof SessionState>;

export const AnchorDisk = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("overlay"),
    overlay: z.string(),
    overlayInode: z.string(),
    root: z.string(),
    rootInode: z.string(),
    sizeBytes: z.number(),
  }),
  z.object({
    kind: z.literal("checkpoint"),
    path: z.string(),
    inode: z.string(),
    sizeBytes: z.number(),
  }),
  z.object({
    kind: z.literal("rbd"),
    image: z.string(),
    identity: z.string(),
    snapshot: z.string(),
    sizeBytes: z.number(),
  }),
]);
export type AnchorDisk = z.infer<typeof AnchorDisk>;

export const AnchorState = z.object({
  /** The job whose ledger entries the anchor consists of. */
  jobId: z.string(),
  checkpoint: z.string().optional(),
  disks: z.record(z.string(), AnchorDisk),
});
export type AnchorState = z.infer<typeof AnchorState>;

export const OverlayDetails = z.object({
  target: z.string(),
  overlay: z.string(),
  /** What the overlay was put upon, and the VM's own image at the bottom of our overlays: nothing else is ever committed into. */
  base: Layer,
  root: Layer,
  rootInode: z.string(),
  forIncremental: z.boolean(),
});
export type OverlayDetails = z.infer<typeof OverlayDetails>;

export const CheckpointDetails = z.object({
  images: z.record(z.string(), z.object({ path: z.string(), inode: z.string() })),
  forIncremental: z.boolean(),
});
export type CheckpointDetails = z.infer<typeof CheckpointDetails>;

export const RbdSnapshotDetails = z.object({
  rbd: RbdReference,
  identity: z.string(),
  forIncremental: z.boolean(),
});

export function parseState<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new Failure("internal", { message: `${what} is not this driver's`, cause: result.error });
}

export function sessionState(session: BackupSession): SessionState {
  return parseState(SessionState, session.state, "the session's state");
}

/** Undefined for none, and for one that another release wrote in a form this one does not know: then a full follows. */
export function anchorState(anchor: ChangeAnchor | undefined): AnchorState | undefined {
  return anchor === undefined ? undefined : AnchorState.safeParse(anchor.state).data;
}

export type RbdReference = z.infer<typeof RbdReference>;

const overlayPattern = /\.holdfast-[a-z0-9-]{1,64}\.overlay$/;

export function isOwnOverlay(path: string): boolean {
  return overlayPattern.test(path);
}

export const checkpointName = (jobId: string): string => `holdfast-${jobId}`;
export const rbdSnapshotName = (jobId: string): string => `holdfast-${jobId}`;
