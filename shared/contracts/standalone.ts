import { z } from "zod";
import { Retention } from "../domain/policy.ts";
import { ImportedPoint, RecoveryPoint } from "./catalog-items.ts";
import { KeysAction, KeysResult } from "./repository-keys.ts";
import { OwnRates } from "./settings.ts";

/**
 * Between the CLI and `mover/standalone.ts`, which works on a repository without a control plane:
 * one request as JSON on stdin, answered by JSON lines on stdout. Secrets travel here and nowhere else:
 * not in arguments, not in the environment.
 */
const Access = {
  /** A directory or `s3://bucket/prefix`. */
  url: z.string().min(1).max(2048),
  passphrase: z.string().min(1).max(1024),
  /** `file`: more limits, which win, and are followed while the command runs. */
  limits: OwnRates.extend({ file: z.string().min(1).max(4096).optional() }).optional(),
};

export const imageFormats = ["raw", "qcow2"] as const;
const ImageFormat = z.enum(imageFormats);

const Collecting = {
  /** Nothing is written or removed. */
  dryRun: z.boolean().default(false),
  /** How long to wait for open sessions. */
  waitSeconds: z
    .number()
    .min(0)
    .max(7 * 86_400)
    .default(0),
  /** Share of the stored bytes, and of the points, that may go at once; absent: half. */
  allowShare: z.number().gt(0).max(1).optional(),
  /** There may be no point left. */
  allowEmpty: z.boolean().default(false),
  /** Condemned lists that do not open go; nobody else collects. */
  dropDamagedLists: z.boolean().default(false),
};

export const StandaloneRequest = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("repository-init"),
    ...Access,
    /** What points need is locked by the store for so long; absent: not at all. */
    lock: z
      .strictObject({ mode: z.enum(["compliance", "governance"]), days: z.int().min(1).max(3650) })
      .optional(),
  }),
  z.strictObject({ kind: z.literal("repository-keys"), ...Access, action: KeysAction }),
  z.strictObject({ kind: z.literal("repository-doctor"), ...Access }),
  z.strictObject({
    kind: z.literal("repository-recover"),
    /** No key is needed: what was put first counts, and who reads it authenticates it. */
    url: Access.url,
    dryRun: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("repository-extend-locks"),
    ...Access,
    /** Instead of the repository's own number of days. */
    days: z.int().min(1).max(3650).optional(),
    dryRun: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("image-hold"),
    ...Access,
    pointId: z.string().min(1).max(200),
    isOn: z.boolean(),
  }),
  z.strictObject({
    kind: z.literal("image-backup"),
    ...Access,
    /** A file, a block device, or an `nbd://` or `nbd+unix://` URL. */
    source: z.string().min(1).max(4096),
    /** Said, never probed: a raw disk's guest chooses its first bytes. Absent: raw, unless the file begins as qcow2 does. */
    format: ImageFormat.optional(),
    /** Points of one name follow each other: the newest is what the next one is deduplicated against first. */
    name: z.string().min(1).max(200),
    /** A point of this name, or `latest`: what did not change since is taken over from it. Needs `changes` or `bitmap`. */
    base: z.string().min(1).max(200).optional(),
    /** File with the ranges that changed since the base. */
    changes: z.string().min(1).max(4096).optional(),
    /** Dirty bitmap of the NBD export that the source is: what it names changed since the base. */
    bitmap: z.string().min(1).max(1023).optional(),
    /** Share of what is called unchanged or zero that is read and compared; with a base 0.01, else 0. */
    sampleShare: z.number().min(0).max(1).optional(),
  }),
  z.strictObject({ kind: z.literal("image-points"), ...Access, name: z.string().optional() }),
  z.strictObject({
    kind: z.literal("image-restore"),
    ...Access,
    pointId: z.string().min(1).max(200),
    /** The object that is the point, where it is known: saves the search. */
    rootKey: z.string().min(1).max(512).optional(),
    /** Key of the disk, or its number from 0; the only disk when absent. */
    disk: z.string().min(1).max(64).optional(),
    /** A new file, or an existing block device of at least the disk's size. */
    output: z.string().min(1).max(4096),
    format: ImageFormat,
    overwrite: z.boolean().default(false),
    /** Writes zeros for what is lost, instead of failing. */
    despiteDamage: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("image-metadata"),
    ...Access,
    pointId: z.string().min(1).max(200),
  }),
  z.strictObject({
    kind: z.literal("point-serve"),
    ...Access,
    pointId: z.string().min(1).max(200),
    /** Key of the disk, or its number from 0; all disks when absent. */
    disk: z.string().min(1).max(64).optional(),
    /** Absent: a Unix socket in a new folder. */
    listen: z
      .discriminatedUnion("kind", [
        z.strictObject({ kind: z.literal("unix"), path: z.string().min(1).max(4096) }),
        z.strictObject({
          kind: z.literal("tcp"),
          host: z.string().min(1).max(64),
          port: z.int().min(0).max(65_535),
        }),
      ])
      .optional(),
    /** With ca-cert.pem, server-cert.pem and server-key.pem. */
    tlsFolder: z.string().min(1).max(4096).optional(),
    /** Of opened chunks that are kept. */
    cacheBytes: z.int().min(1024 ** 2),
  }),
  z.strictObject({
    kind: z.literal("repository-verify"),
    ...Access,
    /** Share of the chunks that is read, above 0 to 1. All that names chunks is read always. */
    share: z.number().gt(0).max(1).default(1),
    /** This point only. */
    pointId: z.string().min(1).max(200).optional(),
    /** Of a whole run: only packs that were not verified for so long. */
    everySeconds: z.number().positive().optional(),
    /** Stops the reading of packs cleanly: stored bytes, seconds. */
    limitBytes: z.number().positive().optional(),
    limitSeconds: z.number().positive().optional(),
    /** Begins anew where a run was cut off. */
    restart: z.boolean().default(false),
    /** Remembers nothing. */
    readOnly: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("repository-repair"),
    ...Access,
    /** Nothing is written. */
    dryRun: z.boolean().default(false),
    /** Reads everything first, instead of relying on what verifications remembered. */
    readAll: z.boolean().default(false),
    /** Another copy of the same repository. */
    from: z.string().min(1).max(2048).optional(),
  }),
  z.strictObject({
    kind: z.literal("repository-collect"),
    ...Access,
    ...Collecting,
    /** Roots of points that are to go as well: those that the control plane's retention has taken off its lists. */
    expire: z.array(z.string().max(512)).optional(),
  }),
  z.strictObject({
    kind: z.literal("repository-compact"),
    ...Access,
    /** Packs of which less than this share is needed. */
    share: z.number().gt(0).max(1).optional(),
    /** Also packs under older key epochs. */
    reseal: z.boolean().default(false),
    /** Stored bytes of packs. */
    limitBytes: z.number().positive().optional(),
    dryRun: Collecting.dryRun,
    waitSeconds: Collecting.waitSeconds,
    /** Share of the stored bytes that may be given up at once; absent: half. */
    allowShare: Collecting.allowShare,
  }),
  z.strictObject({
    kind: z.literal("repository-stats"),
    ...Access,
    /** Of so many packs is read what they hold; with as many as there are, the figures are exact. */
    samplePacks: z.int().min(0).max(100_000_000).default(200),
  }),
  /** The target becomes, or is, the same repository with the same keys. */
  z.strictObject({ kind: z.literal("repository-replicate"), ...Access, targetUrl: Access.url }),
  /** All points as a control plane lists them, one line each; the result says how many there were. */
  z.strictObject({ kind: z.literal("repository-catalog"), ...Access }),
  z.strictObject({
    kind: z.literal("repository-rebuild"),
    ...Access,
    /** Nothing is written. */
    dryRun: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("repository-copy"),
    ...Access,
    target: z.strictObject({ url: Access.url, passphrase: Access.passphrase }),
    /** Ids; all when there are none. */
    points: z.array(z.string().min(1).max(200)).max(10_000).default([]),
    name: z.string().min(1).max(1024).optional(),
    /** ISO 8601: taken then or later. */
    since: z.iso.datetime({ offset: true }).optional(),
    dryRun: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("image-forget"),
    ...Access,
    ...Collecting,
    /** Ids of points, or names of root objects. */
    points: z.array(z.string().min(1).max(512)).max(10_000),
    /** Of each name, or of `name` only, everything goes that no rule keeps. */
    retention: Retention.optional(),
    name: z.string().min(1).max(200).optional(),
    /** Also the last point of a name. */
    lastToo: z.boolean().default(false),
  }),
  z.strictObject({
    kind: z.literal("fetch-host-keys"),
    host: z.string().min(1).max(255),
    port: z.int().min(1).max(65_535),
  }),
]);
export type StandaloneRequest = z.input<typeof StandaloneRequest>;

/** Bytes of one finished transfer. `scanned` is the logical size, `new` what no earlier point had, `stored` what went to storage. */
export const TransferSummary = z.object({
  sizeBytes: z.int(),
  bytesScanned: z.int(),
  bytesRead: z.int(),
  bytesNew: z.int(),
  bytesStored: z.int(),
  seconds: z.number(),
});
export type TransferSummary = z.infer<typeof TransferSummary>;

export const ImagePoint = z.object({
  pointId: z.string(),
  name: z.string(),
  takenAt: z.string(),
  rootKey: z.string(),
  /** What the last verification or repair could not find of it. */
  damage: z.object({ bytesLost: z.int(), isMetadataLost: z.boolean() }).optional(),
  disks: z.array(
    z.object({
      key: z.string(),
      sizeBytes: z.int(),
      mode: z.enum(["full", "incremental"]).optional(),
      /** Why it is in full although an incremental was asked for. */
      reason: z.string().optional(),
      bytesRead: z.int().optional(),
      bytesNew: z.int().optional(),
      bytesStored: z.int().optional(),
    }),
  ),
});
export type ImagePoint = z.infer<typeof ImagePoint>;

/** What a point knows of its VM besides its disks. */
export const PointMetadata = z.object({
  pointId: z.string(),
  name: z.string(),
  takenAt: z.string(),
  providerKind: z.string(),
  /** The VM in the terms of no provider. */
  description: z.looseObject({ name: z.string() }),
  disks: z.array(z.object({ key: z.string(), sizeBytes: z.int() })),
  excludedDisks: z.array(z.looseObject({ key: z.string(), sizeBytes: z.number() })),
  /** The provider's own, by name; a name that ends in `.base64` is of a binary one. */
  documents: z.record(z.string(), z.string()),
});
export type PointMetadata = z.infer<typeof PointMetadata>;

/** A disk that a restore cannot give back whole; ranges in bytes of the disk, rising, neighbours joined. */
export const DamagedDisk = z.object({
  disk: z.string(),
  sizeBytes: z.int(),
  bytesDamaged: z.int(),
  ranges: z.array(z.object({ offset: z.int(), length: z.int() })),
  /** Further ranges, counted only. */
  rangesOmitted: z.int(),
  /** Of the first range. */
  reason: z.string(),
});
export type DamagedDisk = z.infer<typeof DamagedDisk>;

export const DamagedPoint = z.object({
  pointId: z.string(),
  name: z.string(),
  takenAt: z.string(),
  rootKey: z.string(),
  /** Why the VM's metadata cannot be read, where it cannot; the disks can be restored without it. */
  metadata: z.string().optional(),
  disks: z.array(DamagedDisk),
});
export type DamagedPoint = z.infer<typeof DamagedPoint>;

/** What a verification read and found. Bytes: read from storage, and of these after decrypting and inflating. */
export const VerifyReport = z.object({
  share: z.number(),
  points: z.int(),
  disks: z.int(),
  chunksChecked: z.int(),
  chunksBad: z.int(),
  /** Damaged or missing at their place, and read from where a repair or a compaction says that the same bytes are. */
  chunksElsewhere: z.int(),
  bytesRead: z.int(),
  bytesChecked: z.int(),
  seconds: z.number(),
  damagedPoints: z.array(DamagedPoint),
  /** Objects that are damaged or missing; a recovery point's own root among them means that the point is lost. */
  damagedObjects: z.array(z.object({ object: z.string(), reason: z.string() })),
  /** What is odd but costs no point anything; the reason says why. */
  harmless: z.array(z.object({ object: z.string(), reason: z.string() })),
  /** Of a run that reads whole packs: no sample, not one point. Bytes as stored. */
  whole: z
    .object({
      packs: z.int(),
      bytesStored: z.int(),
      packsRead: z.int(),
      /** Due, and left to the next run by a limit. */
      packsLeft: z.int(),
      bytesLeft: z.int(),
      /** The run went on where one that was cut off had begun at this time. */
      resumedFrom: z.string().optional(),
      /** Bytes by when they were last verified, this run included: within a day, 7 days, 30 days, longer ago, never. */
      ages: z.object({
        day: z.int(),
        week: z.int(),
        month: z.int(),
        older: z.int(),
        never: z.int(),
      }),
      /** Why what was verified is not remembered. */
      notRemembered: z.string().optional(),
    })
    .optional(),
});
export type VerifyReport = z.infer<typeof VerifyReport>;

/** Where the disks of a point can be read while it is served. */
export const Serving = z.object({
  pointId: z.string(),
  name: z.string(),
  /** The Unix socket, where it is one. */
  socket: z.string().optional(),
  exports: z.array(z.object({ disk: z.string(), sizeBytes: z.int(), uri: z.string() })),
});
export type Serving = z.infer<typeof Serving>;

/** What `repository doctor` found. `danger`: data can be lost, or cannot be read back. */
export const DoctorReport = z.object({
  url: z.string(),
  /** Absent when the repository could not be opened. */
  repositoryId: z.string().optional(),
  findings: z.array(
    z.object({
      id: z.string(),
      severity: z.enum(["danger", "warning", "note"]),
      what: z.string(),
      remedy: z.string(),
    }),
  ),
});
export type DoctorReport = z.infer<typeof DoctorReport>;

/** Objects that Object Lock keeps for points. */
export const LocksReport = z.object({
  points: z.int(),
  /** What the points need. */
  objects: z.int(),
  /** Whose retention was made longer, or would be. */
  extended: z.int(),
  /** ISO 8601: all of it is locked until then at least. */
  until: z.string(),
  seconds: z.number(),
});
export type LocksReport = z.infer<typeof LocksReport>;

/** What a repair found and did. */
export const RepairReport = z.object({
  isDryRun: z.boolean(),
  points: z.int(),
  /** Chunks and parts of extent maps that points need and that are not where they should be. */
  recordsBad: z.int(),
  /** Of these: found elsewhere. */
  recordsFound: z.int(),
  /** Objects written that say where. */
  relocations: z.array(z.string()),
  /** Objects that were missing and came back from the copy, or would. */
  putBack: z.array(z.string()),
  /** Restorable in full again. */
  healedPoints: z.array(z.object({ pointId: z.string(), name: z.string(), takenAt: z.string() })),
  damagedPoints: z.array(DamagedPoint),
  damagedObjects: z.array(z.object({ object: z.string(), reason: z.string() })),
  seconds: z.number(),
});
export type RepairReport = z.infer<typeof RepairReport>;

/** What a garbage collection found and did; the engine's own report (`shared/repository/maintenance/collect-report.ts`). */
export const CollectReport = z.object({
  isDryRun: z.boolean(),
  state: z.enum(["done", "waiting", "more", "locked"]),
  stored: z.object({ objects: z.int(), bytes: z.int(), packs: z.int() }),
  points: z.object({
    kept: z.int(),
    expired: z.array(z.string()),
    held: z.array(z.string()),
  }),
  garbage: z.object({
    objects: z.int(),
    bytes: z.int(),
    classes: z.array(z.object({ reason: z.string(), objects: z.int(), bytes: z.int() })),
    largest: z.array(z.object({ name: z.string(), sizeBytes: z.int(), reason: z.string() })),
  }),
  earlier: z.object({ lists: z.int(), objects: z.int() }),
  removed: z.object({ objects: z.int(), bytes: z.int() }),
  reprieved: z.int(),
  index: z.object({
    rewritten: z.int(),
    removed: z.int(),
    unreadable: z.array(z.string()),
    merged: z.int(),
  }),
  waitingFor: z.array(
    z.object({
      sessionId: z.string(),
      kind: z.string(),
      holder: z.string(),
      startedAt: z.string(),
      silentForSeconds: z.int(),
    }),
  ),
  fenced: z.array(z.object({ sessionId: z.string(), adopted: z.array(z.string()) })),
  locked: z.array(
    z.object({ key: z.string(), until: z.string().optional(), legalHold: z.boolean() }),
  ),
  unexplained: z.array(
    z.object({
      rootKey: z.string(),
      vmName: z.string(),
      pointId: z.string(),
      takenAt: z.string(),
      keptForSeconds: z.int(),
    }),
  ),
  missingPacks: z.array(z.string()),
  halfEmpty: z.object({ packs: z.int(), bytes: z.int(), neededBytes: z.int() }),
  unknown: z.object({ count: z.int(), names: z.array(z.string()) }),
  brake: z.string().optional(),
  /** Of the roots that the request named to expire, those that are not there any more. */
  gone: z.array(z.string()).optional(),
  seconds: z.number(),
});
export type CollectReport = z.infer<typeof CollectReport>;

/** What a repository holds; `shared/repository/maintenance/stats.ts` says what each figure is. */
export const StatsReport = z.object({
  repositoryId: z.string(),
  url: z.string(),
  points: z.object({
    count: z.int(),
    vms: z.int(),
    logicalBytes: z.int(),
    oldest: z.string().optional(),
    newest: z.string().optional(),
    unreadable: z.int(),
    uncommitted: z.int(),
    damaged: z.int(),
  }),
  stored: z.object({
    objects: z.int(),
    bytes: z.int(),
    classes: z.array(z.object({ kind: z.string(), objects: z.int(), bytes: z.int() })),
    unknown: z.int(),
  }),
  packs: z.object({
    count: z.int(),
    bytes: z.int(),
    fill: z.number(),
    neededBytes: z.int(),
    inWorkBytes: z.int(),
    garbageBytes: z.int().optional(),
    halfEmpty: z.int(),
  }),
  /** What the footers of some packs say; `isExact`: of all. */
  sample: z.object({
    isExact: z.boolean(),
    packs: z.int(),
    bytes: z.int(),
    dataPacks: z.int(),
    dataPackBytes: z.int(),
    metadataPacks: z.int(),
    chunks: z.int(),
    /** Of chunks in data packs: before and after compression and sealing. */
    rawBytes: z.int(),
    storedBytes: z.int(),
    unreadable: z.int(),
    epochs: z.array(z.object({ epoch: z.int(), packs: z.int() })),
  }),
  /** From the sample, for all: bytes before compression that are stored once, and what compression saves. */
  ratios: z.object({
    compression: z.number(),
    uniqueBytes: z.int(),
    logicalToStored: z.number(),
  }),
  sessions: z.array(
    z.object({
      sessionId: z.string(),
      kind: z.string(),
      holder: z.string(),
      startedAt: z.string(),
    }),
  ),
  condemned: z.array(
    z.object({
      name: z.string(),
      madeAt: z.string(),
      packs: z.int(),
      compacting: z.int(),
      roots: z.int(),
      objects: z.int(),
    }),
  ),
  keys: z.object({ epochs: z.array(z.int()), activeEpoch: z.int(), objects: z.int() }),
  /** Why garbage is not known: what does not open. */
  unreadable: z.string().optional(),
  seconds: z.number(),
});
export type StatsReport = z.infer<typeof StatsReport>;

/** What a rebuild of the index read and wrote. */
export const RebuildReport = z.object({
  isDryRun: z.boolean(),
  packs: z.int(),
  dataPacks: z.int(),
  chunks: z.int(),
  condemnedPacks: z.int(),
  damagedPacks: z.array(z.object({ object: z.string(), reason: z.string() })),
  written: z.int(),
  removed: z.int(),
  seconds: z.number(),
});
export type RebuildReport = z.infer<typeof RebuildReport>;

/** What became of each point that was to be copied; bytes over all that were. */
export const CopyReport = z.object({
  isDryRun: z.boolean(),
  points: z.array(
    z.object({
      pointId: z.string(),
      name: z.string(),
      takenAt: z.string(),
      /** `missing` in a dry run only; `damaged`: it cannot be read in full; `going`: a collection removes it from the source. */
      state: z.enum(["copied", "present", "missing", "damaged", "going"]),
      reason: z.string().optional(),
    }),
  ),
  /** Roots in the source that do not open. */
  unreadable: z.int(),
  bytesRead: z.int(),
  bytesNew: z.int(),
  bytesStored: z.int(),
  seconds: z.number(),
});
export type CopyReport = z.infer<typeof CopyReport>;

const Packs = z.object({ packs: z.int(), bytes: z.int() });

/** What a compaction found and did; the engine's own report (`shared/repository/maintenance/compact-report.ts`). */
export const CompactReport = z.object({
  isDryRun: z.boolean(),
  state: z.enum(["done", "waiting", "more", "locked"]),
  points: z.int(),
  stored: Packs,
  chosen: Packs.extend({ neededBytes: z.int() }),
  earlier: z.object({ packs: z.int() }),
  moved: z.object({ packs: z.int(), records: z.int(), bytes: z.int() }),
  written: Packs.extend({ relocations: z.int() }),
  removed: Packs,
  freedBytes: z.int(),
  index: z.object({ rewritten: z.int(), removed: z.int(), unreadable: z.array(z.string()) }),
  left: z.object({
    damaged: z.array(z.object({ name: z.string(), reason: z.string() })),
    locked: z.array(
      z.object({ key: z.string(), until: z.string().optional(), legalHold: z.boolean() }),
    ),
    movedTooOften: z.int(),
    beyondLimit: z.int(),
  }),
  /** Under older key epochs, before. */
  old: Packs,
  waitingFor: CollectReport.shape.waitingFor,
  fenced: CollectReport.shape.fenced,
  brake: z.string().optional(),
  seconds: z.number(),
});
export type CompactReport = z.infer<typeof CompactReport>;

export const ForgetReport = z.object({
  points: z.array(
    z.object({
      pointId: z.string(),
      name: z.string(),
      takenAt: z.string(),
      /** Why it stays; empty for one that goes. */
      keptBy: z.array(z.string()),
    }),
  ),
  collected: CollectReport,
});
export type ForgetReport = z.infer<typeof ForgetReport>;

export const ReplicaReport = z.object({
  /** In the source, and now in the replica. */
  points: z.int(),
  /** Copied, and those that were there already. */
  objects: z.int(),
  bytes: z.int(),
  present: z.int(),
  /** They have other sizes in the replica, and were not touched. */
  different: z.array(z.string()),
  seconds: z.number(),
});
export type ReplicaReport = z.infer<typeof ReplicaReport>;

/** Without the repository's name in the control plane, which it does not know. */
export const CatalogPoint = ImportedPoint.extend({
  point: RecoveryPoint.omit({ repositoryId: true }),
});
export type CatalogPoint = z.infer<typeof CatalogPoint>;

export const standaloneResults = {
  "repository-keys": KeysResult,
  "repository-init": z.object({ repositoryId: z.string(), url: z.string() }),
  "image-backup": z.object({ point: ImagePoint, summary: TransferSummary }),
  "image-points": z.object({ points: z.array(ImagePoint) }),
  "image-restore": z.object({
    pointId: z.string(),
    disk: z.string(),
    output: z.string(),
    /** Ranges of the disk that are zeros because their data is lost; none unless `despiteDamage`. */
    lost: z.array(z.object({ offset: z.int(), length: z.int() })),
    summary: TransferSummary,
  }),
  "image-metadata": PointMetadata,
  "point-serve": z.object({
    pointId: z.string(),
    /** What clients asked for, and bytes of disks that they were given. */
    requests: z.int(),
    bytes: z.int(),
    seconds: z.number(),
  }),
  "repository-verify": VerifyReport,
  "repository-repair": RepairReport,
  "repository-doctor": DoctorReport,
  "repository-recover": z.object({
    hidden: z.array(z.object({ key: z.string(), why: z.enum(["overwritten", "deleted"]) })),
    recovered: z.int(),
  }),
  "repository-extend-locks": LocksReport,
  "image-hold": z.object({ pointId: z.string(), isOn: z.boolean(), objects: z.int() }),
  "repository-collect": CollectReport,
  "repository-compact": CompactReport,
  "repository-stats": StatsReport,
  "repository-replicate": ReplicaReport,
  "repository-catalog": z.object({
    points: z.int(),
    /** Of images, which no control plane lists. */
    images: z.int(),
    /** Roots or VM metadata that do not open, or that are of another release. */
    unreadable: z.int(),
  }),
  "repository-rebuild": RebuildReport,
  "repository-copy": CopyReport,
  "image-forget": ForgetReport,
  "fetch-host-keys": z.object({
    /** OpenSSH's form, `ssh-ed25519 AAAA…`, the strongest first. */
    hostKeys: z.array(z.object({ key: z.string(), fingerprint: z.string() })),
  }),
} as const satisfies Record<StandaloneRequest["kind"], z.ZodType>;
export type StandaloneResult<Kind extends StandaloneRequest["kind"]> = z.output<
  (typeof standaloneResults)[Kind]
>;

export const StandaloneLine = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("progress"),
    disk: z.string(),
    bytesDone: z.number(),
    bytesTotal: z.number(),
  }),
  z.object({ type: z.literal("warning"), message: z.string() }),
  /** A server is there now and serves until it is told to stop. */
  z.object({ type: z.literal("serving"), serving: Serving }),
  z.object({ type: z.literal("point"), point: CatalogPoint }),
  /** For people only. */
  z.object({ type: z.literal("note"), message: z.string() }),
  z.object({ type: z.literal("result"), result: z.unknown() }),
  z.object({
    type: z.literal("failed"),
    failure: z.object({ code: z.string(), message: z.string(), causes: z.array(z.string()) }),
  }),
]);
export type StandaloneLine = z.infer<typeof StandaloneLine>;
