import { z } from "zod";
import { BackupOptions, Retention, strategies, VmSelection } from "../domain/policy.ts";

/**
 * What the catalog holds. Times are ISO 8601 in UTC. The catalog is a cache of the repository for recovery
 * points and the only home of providers, policies, jobs and the ledger.
 */
export const SshSettings = z.strictObject({
  host: z.string().min(1).max(255),
  port: z.int().min(1).max(65_535).default(22),
  user: z.string().min(1).max(64).default("root"),
  hostKeys: z.array(z.string().min(1).max(8192)).min(1).max(16),
  login: z.enum(["key", "password"]),
});
export type SshSettings = z.infer<typeof SshSettings>;

export const LibvirtSettings = z.strictObject({
  kind: z.literal("libvirt"),
  ssh: SshSettings,
  uri: z.string().max(255).default("qemu:///system"),
  /** Folder on the host for overlays, scratch files and sockets; undefined: overlays beside the disks, the rest under /var/tmp/holdfast. */
  scratchFolder: z.string().startsWith("/").max(1024).optional(),
});
export type LibvirtSettings = z.infer<typeof LibvirtSettings>;

export const ProviderSettings = z.discriminatedUnion("kind", [LibvirtSettings]);
export type ProviderSettings = z.infer<typeof ProviderSettings>;

const LimitPerSecond = z
  .int()
  .min(0)
  .max(2 ** 50)
  .optional();

/**
 * How much may pass a second, for each mover; absent is no limit, and 0 lets nothing pass. Of a repository: bytes out of
 * its storage (`read`) and into it (`write`), and calls. Of a provider: bytes out of and into its disks, and reads and writes.
 */
export const RateLimits = z.strictObject({
  readBytesPerSecond: LimitPerSecond,
  writeBytesPerSecond: LimitPerSecond,
  requestsPerSecond: LimitPerSecond,
});
export type RateLimits = z.infer<typeof RateLimits>;

export const Provider = z.strictObject({
  providerId: z.string(),
  siteId: z.string(),
  settings: ProviderSettings,
  /** Name of the SSM parameter with the secret: the private key or the password. */
  secretParameter: z.string(),
  createdAt: z.string(),
  lastSyncAt: z.string().optional(),
  lastSyncError: z.string().optional(),
  limits: RateLimits.optional(),
});
export type Provider = z.infer<typeof Provider>;

export const Repository = z.strictObject({
  repositoryId: z.string(),
  url: z.string(),
  /** Name of the SSM parameter with the passphrase. */
  passphraseParameter: z.string(),
  createdAt: z.string(),
  limits: RateLimits.optional(),
});
export type Repository = z.infer<typeof Repository>;

const VmDiskItem = z.strictObject({
  key: z.string(),
  sizeBytes: z.int().min(0),
  bus: z.string(),
  format: z.enum(["raw", "qcow2"]),
  storage: z.enum(["file", "block", "rbd"]),
  location: z.string(),
  serial: z.string().optional(),
  readOnly: z.boolean(),
  shareable: z.boolean(),
});

export const VmDescriptionItem = z.strictObject({
  name: z.string(),
  uuid: z.string(),
  memoryBytes: z.number(),
  vcpus: z.number(),
  architecture: z.string(),
  firmware: z.enum(["bios", "uefi"]),
  disks: z.array(VmDiskItem),
  nics: z.array(z.strictObject({ mac: z.string(), network: z.string(), model: z.string() })),
  tags: z.array(z.string()),
});

export const ChangeAnchorItem = z.strictObject({
  strategy: z.enum(strategies),
  state: z.record(z.string(), z.unknown()),
});

export const Vm = z.strictObject({
  vmId: z.string(),
  providerId: z.string(),
  externalId: z.string(),
  description: VmDescriptionItem,
  power: z.enum(["running", "paused", "stopped", "unknown"]),
  strategy: z.enum(strategies),
  strategyReason: z.string(),
  /** True when the last sync no longer found it; its points stay. */
  gone: z.boolean(),
  seenAt: z.string(),
  /** Counts attempts to hold the VM; the holder's number is its fence. */
  fence: z.int().min(0),
  lock: z.strictObject({ jobId: z.string(), fence: z.int() }).optional(),
  /** The newest committed point and what it left on the hypervisor. */
  head: z
    .strictObject({
      pointId: z.string(),
      repositoryId: z.string(),
      jobId: z.string(),
      anchor: ChangeAnchorItem.optional(),
      takenAt: z.string().optional(),
    })
    .optional(),
});
export type Vm = z.infer<typeof Vm>;

export const Policy = z.strictObject({
  policyId: z.string(),
  repositoryId: z.string(),
  selection: VmSelection,
  /** EventBridge Scheduler expression, `cron(…)` or `rate(…)`; undefined: on demand only. */
  schedule: z.string().max(256).optional(),
  timeZone: z.string().max(64).default("UTC"),
  options: BackupOptions,
  retention: Retention,
  createdAt: z.string(),
});
export type Policy = z.infer<typeof Policy>;

export const jobStates = [
  "queued",
  "running",
  "cancelling",
  "succeeded",
  "warnings",
  "failed",
  "cancelled",
] as const;
export type JobState = (typeof jobStates)[number];
export const jobStatesEnded: readonly JobState[] = ["succeeded", "warnings", "failed", "cancelled"];

const FailureItem = z.strictObject({
  code: z.string(),
  message: z.string(),
  causes: z.array(z.string()),
});

export const RestoreOptionsItem = z.strictObject({
  pointId: z.string(),
  /** Where to; the point's own provider when absent. */
  providerId: z.string().optional(),
  name: z.string().min(1).max(200).optional(),
  mode: z.enum(["new", "replace"]).default("new"),
  keepIdentity: z.boolean().default(false),
  start: z.boolean().default(false),
  location: z.string().max(1024).optional(),
  storage: z.enum(["file", "rbd", "original"]).default("original"),
  format: z.enum(["qcow2", "raw", "original"]).default("original"),
  excludedDisks: z.enum(["empty", "omit"]).default("empty"),
});
export type RestoreOptions = z.infer<typeof RestoreOptionsItem>;

const JobCommon = {
  jobId: z.string(),
  state: z.enum(jobStates),
  providerId: z.string(),
  siteId: z.string(),
  createdAt: z.string(),
  startedAt: z.string().optional(),
  endedAt: z.string().optional(),
  /** Name of the state now running, for display. */
  stage: z.string().optional(),
  fence: z.int().optional(),
  failure: FailureItem.optional(),
  warnings: z.array(z.string()),
};

export const BackupJob = z.strictObject({
  ...JobCommon,
  kind: z.literal("backup"),
  vmId: z.string(),
  vmName: z.string(),
  repositoryId: z.string(),
  policyId: z.string().optional(),
  /** Ask for a full read even where an incremental is possible. */
  full: z.boolean(),
  options: BackupOptions,
  /** Set by Begin: the anchor and point that this job builds on. */
  previous: z.strictObject({ pointId: z.string(), anchor: ChangeAnchorItem.optional() }).optional(),
  /** Set by Begin: the session in the repository that all stages of this job write in. */
  repositorySessionId: z.string().optional(),
  pointId: z.string().optional(),
});
export type BackupJob = z.infer<typeof BackupJob>;

export const RestoreJob = z.strictObject({
  ...JobCommon,
  kind: z.literal("restore"),
  repositoryId: z.string(),
  /** The VM whose point is restored, if the catalog still knows it. */
  vmId: z.string().optional(),
  vmName: z.string(),
  restore: RestoreOptionsItem,
  restored: z
    .strictObject({ externalId: z.string(), name: z.string(), started: z.boolean() })
    .optional(),
});
export type RestoreJob = z.infer<typeof RestoreJob>;

export const ProviderFindingItem = z.strictObject({
  check: z.string(),
  state: z.enum(["ok", "warning", "failed"]),
  message: z.string(),
  remedy: z.string().optional(),
});

/** Inventory sync, or only the connection test. */
export const InspectJob = z.strictObject({
  ...JobCommon,
  kind: z.literal("inspect"),
  mode: z.enum(["test", "sync"]),
  findings: z.array(ProviderFindingItem).optional(),
  vmsSeen: z.int().optional(),
});
export type InspectJob = z.infer<typeof InspectJob>;

export const Job = z.discriminatedUnion("kind", [BackupJob, RestoreJob, InspectJob]);
export type Job = z.infer<typeof Job>;

/** Progress of one disk of a job; bytes. */
export const DiskProgress = z.strictObject({
  diskKey: z.string(),
  sizeBytes: z.int().min(0),
  /** Logical bytes dealt with so far, of `bytesTotal` that this transfer has to deal with. */
  bytesDone: z.int().min(0),
  bytesTotal: z.int().min(0),
  bytesRead: z.int().min(0),
  /** Bytes of chunks that were not in the repository, before compression. */
  bytesNew: z.int().min(0),
  /** Bytes written to the repository's storage. */
  bytesStored: z.int().min(0),
  mode: z.enum(["full", "incremental", "restore"]),
  reason: z.string(),
  startedAt: z.string(),
  updatedAt: z.string(),
  finished: z.boolean(),
});
export type DiskProgress = z.infer<typeof DiskProgress>;

export const JobLogLine = z.strictObject({
  time: z.string(),
  level: z.enum(["info", "warn", "error"]),
  message: z.string().max(4000),
});
export type JobLogLine = z.infer<typeof JobLogLine>;

/** A committed recovery point as the catalog lists it; `rootKey` names the object in the repository that is the point. */
export const RecoveryPoint = z.strictObject({
  pointId: z.string(),
  vmId: z.string(),
  vmName: z.string(),
  providerId: z.string(),
  repositoryId: z.string(),
  rootKey: z.string(),
  jobId: z.string(),
  takenAt: z.string(),
  committedAt: z.string(),
  mode: z.enum(["full", "incremental"]),
  consistency: z.enum(["application", "crash", "stopped"]),
  warnings: z.array(z.string()),
  disks: z.array(
    z.strictObject({
      key: z.string(),
      sizeBytes: z.int(),
      mode: z.enum(["full", "incremental"]),
      reason: z.string(),
      bytesRead: z.int(),
      bytesNew: z.int(),
      bytesStored: z.int(),
    }),
  ),
  parentPointId: z.string().optional(),
});
export type RecoveryPoint = z.infer<typeof RecoveryPoint>;

/** A point that retention took off the list, until a collection of its repository has removed its root. */
export const ExpiredPoint = z.strictObject({
  pointId: z.string(),
  vmId: z.string(),
  vmName: z.string(),
  repositoryId: z.string(),
  rootKey: z.string(),
  takenAt: z.string(),
});
export type ExpiredPoint = z.infer<typeof ExpiredPoint>;

/** A point as a repository has it, to be listed by a control plane that does not know it. */
export const ImportedPoint = z.strictObject({
  point: RecoveryPoint,
  /** Of the attempt that made it. */
  fence: z.int().min(0),
  /** As it was when the point was taken; used where the catalog does not know the VM. */
  description: VmDescriptionItem,
});
export type ImportedPoint = z.infer<typeof ImportedPoint>;

/** A mover that is or was there. Times by its own clock; for people to look at. */
export const Mover = z.strictObject({
  moverId: z.string(),
  siteId: z.string(),
  version: z.string(),
  startedAt: z.string(),
  seenAt: z.string(),
});
export type Mover = z.infer<typeof Mover>;

/** What one finished mover task left for the stages after it; a retry of the task finds it and stops there. */
export const TaskRecord = z.strictObject({
  taskName: z.string(),
  /** The mover's claim: its number is the fence of this task. */
  claim: z.int().min(0),
  moverId: z.string(),
  result: z.record(z.string(), z.unknown()).optional(),
});
export type TaskRecord = z.infer<typeof TaskRecord>;
