import { Failure } from "../../domain/failure.ts";
import type { Strategy } from "../../domain/policy.ts";
import { statFile } from "../../kvm-host/files.ts";
import { rbdSnapshots } from "../../kvm-host/rbd.ts";
import type { SnapshotRequest } from "../../ports/driver.ts";
import { chooseStrategy, type HostVersions, untracked } from "./choose-strategy.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { type AnchorDisk, type AnchorState, anchorState } from "./state.ts";
import type { DiskFacts, VmFacts } from "./vm-facts.ts";

/** What a backup will do, before it touches anything. */
export type BackupPlan = {
  readonly strategy: Strategy;
  readonly strategyReason: string;
  readonly disks: readonly PlannedDisk[];
  readonly excluded: readonly {
    readonly key: string;
    readonly sizeBytes: number;
    readonly reason: string;
  }[];
  /** The previous point's checkpoint, if it may be used. */
  readonly checkpoint: string | undefined;
  readonly anchor: AnchorState | undefined;
};

export type UsableDisk = Exclude<DiskFacts, { readonly kind: "unsupported" }>;

export type PlannedDisk = {
  readonly facts: UsableDisk;
  /** Undefined: an incremental. Otherwise why the disk is read in full; empty for a first backup. */
  readonly fullReason: string | undefined;
  /** For RBD: the snapshot that the diff starts from. */
  readonly from: string | undefined;
};

export async function planBackup(
  host: LibvirtHost,
  facts: VmFacts,
  versions: HostVersions,
  request: SnapshotRequest,
): Promise<BackupPlan> {
  const { options, previous } = request;
  const excluded = facts.disks
    .filter((disk) => options.excludeDisks.includes(disk.key))
    .map(({ key, sizeBytes }) => ({ key, sizeBytes, reason: "excluded by the policy" }));
  const included = facts.disks.filter((disk) => !options.excludeDisks.includes(disk.key));
  const usable = included.map((disk) => checkUsable(facts, disk));
  const choice = chooseStrategy(facts, usable, versions, options.strategy);
  const anchor = anchorState(previous);
  const since = previous?.strategy === choice.strategy && options.incremental ? anchor : undefined;
  const general = generalReason(facts, request, choice.strategy, anchor);
  const checkpoint = await usableCheckpoint(host, facts, since);
  const disks: PlannedDisk[] = [];
  for (const disk of usable) {
    const before = since?.disks[disk.key];
    if (since === undefined) {
      disks.push({ facts: disk, fullReason: general, from: undefined });
    } else if (before === undefined) {
      const reason = whyUntracked(choice.strategy, disk) ?? "the last point tracked no such disk";
      disks.push({ facts: disk, fullReason: reason, from: undefined });
    } else {
      disks.push(await planDisk(host, disk, before, checkpoint, facts.isActive));
    }
  }
  return {
    strategy: choice.strategy,
    strategyReason: choice.reason,
    disks,
    excluded,
    checkpoint: disks.some((disk) => disk.fullReason === undefined) ? checkpoint : undefined,
    anchor,
  };
}

function checkUsable(facts: VmFacts, disk: DiskFacts): UsableDisk {
  const refuse = (problem: string) =>
    new Failure("vm.unsupported", {
      message: `disk ${disk.key} of ${facts.domain.name}: ${problem}`,
    });
  if (disk.kind === "unsupported") throw refuse(disk.problem);
  if (disk.disk.shareable) throw refuse("it is shared with other VMs");
  if (disk.disk.readOnly) throw refuse("it is attached read-only; exclude it");
  return disk;
}

function generalReason(
  facts: VmFacts,
  { previous, options }: SnapshotRequest,
  strategy: Strategy,
  anchor: AnchorState | undefined,
): string {
  if (previous === undefined) return "";
  if (!facts.isPersistent) return "the VM is transient, so no change tracking stays with it";
  if (!options.incremental) return "the policy asks for full reads";
  if (previous.strategy !== strategy) {
    return `the strategy changed from ${previous.strategy} to ${strategy}`;
  }
  return anchor === undefined ? "what the last point left is not understood" : "";
}

function whyUntracked(strategy: Strategy, disk: DiskFacts): string | undefined {
  const reason = strategy === "checkpoint" ? untracked(disk) : undefined;
  return reason === undefined ? undefined : `${reason}, which this strategy cannot track`;
}

/** Undefined when libvirt no longer has it; for a stopped VM the bitmap in the image counts, see `planDisk`. */
async function usableCheckpoint(
  host: LibvirtHost,
  facts: VmFacts,
  anchor: AnchorState | undefined,
): Promise<string | undefined> {
  const name = anchor?.checkpoint;
  if (name === undefined) return undefined;
  if (!facts.isActive) return name;
  const list = await host.virsh.run(["checkpoint-list", "--domain", facts.uuid, "--name"]);
  return list.split("\n").some((line) => line.trim() === name) ? name : undefined;
}

async function planDisk(
  host: LibvirtHost,
  facts: UsableDisk,
  before: AnchorDisk,
  checkpoint: string | undefined,
  isActive: boolean,
): Promise<PlannedDisk> {
  const full = (fullReason: string): PlannedDisk => ({ facts, fullReason, from: undefined });
  if (before.sizeBytes !== facts.sizeBytes) {
    return full(`the disk's size changed from ${before.sizeBytes} to ${facts.sizeBytes} bytes`);
  }
  if (facts.kind === "rbd") {
    if (before.kind !== "rbd") return full("the disk moved to RBD");
    if (before.identity !== facts.identity || before.image !== facts.rbd.image) {
      return full("the RBD image is another one");
    }
    const snapshots = await rbdSnapshots(host.connection, facts.rbd);
    const kept = snapshots.find(({ name }) => name === before.snapshot);
    if (kept === undefined) return full("the last point's RBD snapshot is gone");
    if (kept.size !== facts.sizeBytes) return full("the RBD image was resized");
    return { facts, fullReason: undefined, from: before.snapshot };
  }
  const reason =
    before.kind === "overlay"
      ? await overlayBreak(host, facts, before)
      : before.kind === "checkpoint"
        ? await checkpointBreak(host, facts, before, checkpoint, isActive)
        : "the disk moved away from RBD";
  return { facts, fullReason: reason, from: undefined };
}

type ImageDisk = Extract<UsableDisk, { readonly kind: "image" }>;

async function overlayBreak(
  host: LibvirtHost,
  { chain, root }: ImageDisk,
  before: Extract<AnchorDisk, { readonly kind: "overlay" }>,
): Promise<string | undefined> {
  const [active] = chain;
  if (active.path !== before.overlay) {
    return `the VM writes ${active.path}, not the overlay that the last point left`;
  }
  if (root.path !== before.root) return "the image below the overlay is another one";
  const overlay = await statFile(host.connection, before.overlay);
  const base = await statFile(host.connection, before.root);
  return overlay?.inode === before.overlayInode && base?.inode === before.rootInode
    ? undefined
    : "an image was replaced by another file of the same name";
}

async function checkpointBreak(
  host: LibvirtHost,
  { chain, image }: ImageDisk,
  before: Extract<AnchorDisk, { readonly kind: "checkpoint" }>,
  checkpoint: string | undefined,
  isActive: boolean,
): Promise<string | undefined> {
  if (checkpoint === undefined) return "libvirt no longer has the last point's checkpoint";
  const [active] = chain;
  if (active.path !== before.path) return `the VM writes another image, ${active.path}`;
  const facts = await statFile(host.connection, active.path);
  if (facts?.inode !== before.inode) return "the image was replaced by another file of that name";
  // While QEMU has the image open, its header says nothing of the bitmaps; the backup job will tell.
  if (isActive) return undefined;
  const bitmap = image.bitmaps.find(({ name }) => name === checkpoint);
  return bitmap === undefined ? "the image no longer has the last point's bitmap" : undefined;
}
