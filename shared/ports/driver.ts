import type { BackupOptions, Strategy } from "../domain/policy.ts";
import type { PowerState, VmDescription } from "../domain/vm.ts";
import type { DiskReader, DiskWriter } from "./disk.ts";
import type { Ledger } from "./ledger.ts";
import type { Logger } from "./logger.ts";

/**
 * One provider: a hypervisor manager or a single host. Every call may be repeated after a crash, by another mover:
 * names are deterministic from the job id, sessions are plain JSON, and what is made outside is in the ledger first.
 */
export interface Driver {
  /** Logs in, checks versions, rights and tools. Each finding names the remedy. */
  check(options: DriverCall): Promise<readonly ProviderFinding[]>;
  inventory(options: DriverCall): AsyncIterable<InventoryItem>;

  /** Pre commands, freeze, snapshot or checkpoint of all disks at one moment, thaw at once, post commands. Leaves nothing behind when it fails. */
  snapshot(request: SnapshotRequest, context: DriverContext): Promise<BackupSession>;
  /** The provider's own documents and the normalised description, as of the snapshot. */
  metadata(session: BackupSession, context: DriverContext): Promise<VmMetadata>;
  /** Opens one disk of the session. `full: true` ignores change tracking (after a failed sample, say). */
  openDisk(
    session: BackupSession,
    diskKey: string,
    options: DriverContext & { readonly full: boolean },
  ): Promise<DiskReader>;
  /** Fails with the cause when the session can no longer deliver right data or endangers the guest (scratch nearly full, export gone, VM removed). Called every few seconds during transfers. */
  watch(session: BackupSession, context: DriverContext): Promise<void>;
  /**
   * Removes everything the job made, from the session and the ledger; with `committed` the new anchor is kept and the
   * previous one removed, with `failed` the other way round. Without a session (the snapshot stage died) works from the ledger alone.
   * Thaws the guest if it is frozen by this job. Also sweeps leftovers of `endedJobIds`.
   */
  release(request: ReleaseRequest, context: DriverContext): Promise<void>;

  /** Checks that the target can take the restore, then makes the empty disks under temporary names. */
  prepareRestore(request: RestoreRequest, context: DriverContext): Promise<RestoreSession>;
  openTarget(session: RestoreSession, diskKey: string, context: DriverContext): Promise<DiskWriter>;
  /** Puts the disks in place, defines the VM, starts it if asked. Only here does the VM begin to exist. */
  finishRestore(session: RestoreSession, context: DriverContext): Promise<RestoredVm>;
  /** Removes what a failed restore made; never what existed before. */
  abandonRestore(session: RestoreSession | undefined, context: DriverContext): Promise<void>;
}

export type DriverCall = { readonly signal: AbortSignal; readonly logger: Logger };

export type DriverContext = DriverCall & {
  readonly jobId: string;
  readonly ledger: Ledger;
};

export type ProviderFinding = {
  readonly check: string;
  readonly state: "ok" | "warning" | "failed";
  readonly message: string;
  readonly remedy?: string;
};

export type InventoryItem = {
  /** The provider's own stable id: the UUID for libvirt. */
  readonly externalId: string;
  readonly power: PowerState;
  readonly description: VmDescription;
  /** The strategy that `auto` would choose now, and why. */
  readonly strategy: Strategy;
  readonly strategyReason: string;
};

export type SnapshotRequest = {
  readonly externalId: string;
  readonly options: BackupOptions;
  /** What the last committed point left on the hypervisor; undefined for the first, or to force a full. */
  readonly previous: ChangeAnchor | undefined;
};

/** What a point leaves on the hypervisor so that the next one can be incremental. Opaque to all but its driver. */
export type ChangeAnchor = {
  readonly strategy: Strategy;
  readonly state: Readonly<Record<string, unknown>>;
};

export type Consistency = "application" | "crash" | "stopped";

/** Plain JSON, at most some hundred bytes a disk; any mover can pick it up. */
export type BackupSession = {
  readonly jobId: string;
  readonly externalId: string;
  readonly strategy: Strategy;
  /** ISO 8601, by the hypervisor's or the mover's clock at the snapshot; for display only. */
  readonly takenAt: string;
  readonly consistency: Consistency;
  /** Things an operator should read: why quiesce fell back, why a disk is full. */
  readonly warnings: readonly string[];
  readonly disks: readonly SessionDisk[];
  /** The anchor that this backup creates; kept when it commits. Undefined when nothing is kept. */
  readonly anchor: ChangeAnchor | undefined;
  /** The driver's own. */
  readonly state: Readonly<Record<string, unknown>>;
};

export type SessionDisk = {
  readonly key: string;
  readonly sizeBytes: number;
  readonly mode: "full" | "incremental";
  /** Why it is full although an incremental was asked for; empty for a first backup. */
  readonly reason: string;
};

export type VmMetadata = {
  readonly providerKind: string;
  readonly description: VmDescription;
  /** Disks that were left out, and why. */
  readonly excludedDisks: readonly {
    readonly key: string;
    readonly sizeBytes: number;
    readonly reason: string;
  }[];
  /** The provider's own documents by name: `domain.xml`; binary ones base64 under a name ending in `.base64` (`nvram.base64`). */
  readonly documents: Readonly<Record<string, string>>;
};

export type ReleaseRequest = {
  readonly externalId: string;
  readonly session: BackupSession | undefined;
  readonly outcome: "committed" | "failed";
  /** The anchor of the last committed point before this job, as given to `snapshot`. */
  readonly previous: ChangeAnchor | undefined;
  /** Other jobs of this VM that ended without a complete release. */
  readonly endedJobIds: readonly string[];
};

export type RestoreRequest = {
  readonly metadata: VmMetadata;
  /** Disks to restore with their sizes in the point; disks of the VM that are not in the point are made empty or left out. */
  readonly disks: readonly { readonly key: string; readonly sizeBytes: number }[];
  readonly target: RestoreTarget;
};

export type RestoreTarget = {
  /** The VM's name after the restore. */
  readonly name: string;
  /** `new`: refuses a taken name. `replace`: the stopped VM of that name gives up its place once all data is there. */
  readonly mode: "new" | "replace";
  /** Keep MAC addresses and UUID. Refused while a VM with that UUID exists elsewhere on the provider, unless it is the one replaced. */
  readonly keepIdentity: boolean;
  readonly start: boolean;
  /** Folder on the host, or RBD pool, for the disks; undefined: where the originals lie. */
  readonly location: string | undefined;
  readonly storage: "file" | "rbd" | "original";
  readonly format: "qcow2" | "raw" | "original";
  /** Disks that were excluded from the backup: make empty ones of the same size, or define the VM without them. */
  readonly excludedDisks: "empty" | "omit";
};

export type RestoreSession = {
  readonly jobId: string;
  readonly disks: readonly { readonly key: string; readonly sizeBytes: number }[];
  readonly warnings: readonly string[];
  readonly state: Readonly<Record<string, unknown>>;
};

export type RestoredVm = {
  readonly externalId: string;
  readonly name: string;
  readonly started: boolean;
  readonly warnings: readonly string[];
};
