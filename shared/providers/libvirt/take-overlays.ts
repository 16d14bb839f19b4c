import { Failure } from "../../domain/failure.ts";
import { fileNameOf, folderOf, statFile } from "../../kvm-host/files.ts";
import { type ImageLayer, imageFacts } from "../../kvm-host/image.ts";
import { createRbdSnapshot, rbdInfo } from "../../kvm-host/rbd.ts";
import type { DriverContext, SessionDisk } from "../../ports/driver.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import type { BackupPlan, PlannedDisk, UsableDisk } from "./plan-backup.ts";
import { type AnchorDisk, type DiskState, type OverlayDetails, rbdSnapshotName } from "./state.ts";
import { lookAtVm, type VmFacts } from "./vm-facts.ts";

/**
 * Strategy ssh-snapshot: all file and block disks get an overlay in one libvirt transaction, RBD disks a snapshot.
 * What lies below an overlay is frozen from then on. The overlay stays until the next point: what is in it by then
 * is what changed, and it is merged once that point is committed.
 */
export type Taken = {
  readonly disks: readonly SessionDisk[];
  readonly states: Readonly<Record<string, DiskState>>;
  /** Undefined when a disk leaves nothing for the next incremental. */
  readonly anchorDisks: Readonly<Record<string, AnchorDisk>>;
  readonly checkpoint?: string;
  readonly socket?: string;
  readonly warnings: readonly string[];
};

type ImageDisk = Extract<UsableDisk, { readonly kind: "image" }>;
type RbdDisk = Extract<UsableDisk, { readonly kind: "rbd" }>;

/** Everything that can be done before the guest is frozen: names, ledger. */
export async function prepareOverlays(
  host: LibvirtHost,
  facts: VmFacts,
  plan: BackupPlan,
  context: DriverContext,
  forIncremental: boolean,
): Promise<void> {
  const { jobId, ledger } = context;
  for (const { facts: disk } of plan.disks) {
    if (disk.kind === "rbd") {
      await intendRbdSnapshot(disk, context, forIncremental);
      continue;
    }
    const root = await statFile(host.connection, disk.root.path);
    if (root === undefined) {
      throw new Failure("vm.snapshot-failed", { message: `${disk.root.path} does not exist` });
    }
    const overlay = overlayPath(host, facts, disk, jobId);
    const details: OverlayDetails = {
      target: disk.key,
      overlay,
      base: disk.chain[0],
      root: disk.root,
      rootInode: root.inode,
      forIncremental,
    };
    await ledger.intend({
      id: `${jobId}/overlay/${disk.key}`,
      jobId,
      kind: "overlay",
      name: overlay,
      details,
      kept: false,
    });
  }
}

export function intendRbdSnapshot(
  disk: RbdDisk,
  { jobId, ledger }: DriverContext,
  forIncremental: boolean,
): Promise<void> {
  return ledger.intend({
    id: `${jobId}/rbd-snapshot/${disk.key}`,
    jobId,
    kind: "rbd-snapshot",
    name: rbdSnapshotName(jobId),
    details: { rbd: rbdReference(disk), identity: disk.identity, forIncremental },
    kept: false,
  });
}

/** Made while the guest is frozen, if it can be. */
export async function makeOverlays(
  host: LibvirtHost,
  facts: VmFacts,
  plan: BackupPlan,
  jobId: string,
): Promise<void> {
  const images = plan.disks.flatMap(({ facts: disk }) => (disk.kind === "image" ? [disk] : []));
  const rbds = plan.disks.flatMap(({ facts: disk }) => (disk.kind === "rbd" ? [disk] : []));
  if (images.length > 0) {
    const included = images.map(({ key }) => key);
    const others = [
      ...facts.domain.disks.map(({ target }) => target),
      ...facts.domain.otherTargets,
    ];
    const specs = [
      ...images.map((disk) => {
        const path = overlayPath(host, facts, disk, jobId).replaceAll(",", ",,");
        return `${disk.key},snapshot=external,driver=qcow2,file=${path}`;
      }),
      ...others.filter((target) => !included.includes(target)).map((t) => `${t},snapshot=no`),
    ];
    const flags = ["--disk-only", "--atomic", "--no-metadata"];
    await host.virsh.run(
      [
        "snapshot-create-as",
        "--domain",
        facts.uuid,
        ...flags,
        ...specs.flatMap((spec) => ["--diskspec", spec]),
      ],
      { timeoutMs: 120_000 },
    );
  }
  await Promise.all(
    rbds.map((disk) => createRbdSnapshot(host.connection, disk.rbd, rbdSnapshotName(jobId))),
  );
}

/** What the session says of the disks, after the moment. */
export async function describeOverlays(
  host: LibvirtHost,
  before: VmFacts,
  plan: BackupPlan,
  jobId: string,
  isFrozen: boolean,
): Promise<Taken> {
  const after = await lookAtVm(host, before.uuid);
  const disks: SessionDisk[] = [];
  const states: Record<string, DiskState> = {};
  const anchorDisks: Record<string, AnchorDisk> = {};
  for (const planned of plan.disks) {
    const disk = planned.facts;
    const now = after.disks.find(({ key }) => key === disk.key);
    const described =
      disk.kind === "rbd"
        ? await describeRbd(host, disk, planned, jobId)
        : await describeImage(host, disk, planned, now, overlayPath(host, before, disk, jobId));
    disks.push(described.session);
    states[disk.key] = described.state;
    anchorDisks[disk.key] = described.anchor;
  }
  return { disks, states, anchorDisks, warnings: momentWarnings(plan, isFrozen, before) };
}

/** RBD snapshots and overlays are made one after the other; only a frozen or stopped guest makes them one moment. */
function momentWarnings(plan: BackupPlan, isFrozen: boolean, facts: VmFacts): readonly string[] {
  const rbds = plan.disks.filter(({ facts: disk }) => disk.kind === "rbd").length;
  const isOneMoment = isFrozen || facts.power !== "running" || plan.disks.length === 1;
  return rbds === 0 || isOneMoment
    ? []
    : ["the guest was not frozen, so its RBD disks were taken some milliseconds apart"];
}

type Described = {
  readonly session: SessionDisk;
  readonly state: DiskState;
  readonly anchor: AnchorDisk;
};

async function describeImage(
  host: LibvirtHost,
  disk: ImageDisk,
  planned: PlannedDisk,
  now: VmFacts["disks"][number] | undefined,
  overlay: string,
): Promise<Described> {
  const [active, ...below] = now?.kind === "image" ? now.chain : [];
  if (active?.path !== overlay || !isSameChain(below, disk.chain)) {
    throw new Failure("vm.snapshot-failed", {
      message: `disk ${disk.key}: the chain after the snapshot is not the expected one`,
    });
  }
  const [frozen] = disk.chain;
  const { sizeBytes } = await imageFacts(host.connection, frozen);
  const overlayFile = await statFile(host.connection, overlay);
  const rootFile = await statFile(host.connection, disk.root.path);
  const grown = sizeBytes !== disk.sizeBytes;
  const fullReason = grown ? "the disk's size changed" : planned.fullReason;
  return {
    session: sessionDisk(disk.key, sizeBytes, fullReason),
    state: { kind: "overlay", layers: [...disk.chain], changes: fullReason === undefined },
    anchor: {
      kind: "overlay",
      overlay,
      overlayInode: overlayFile?.inode ?? "",
      root: disk.root.path,
      rootInode: rootFile?.inode ?? "",
      sizeBytes,
    },
  };
}

async function describeRbd(
  host: LibvirtHost,
  disk: RbdDisk,
  planned: PlannedDisk,
  jobId: string,
): Promise<Described> {
  const info = await rbdInfo(host.connection, {
    ...disk.rbd,
    image: `${disk.rbd.image}@${rbdSnapshotName(jobId)}`,
  });
  const grown = info.sizeBytes !== disk.sizeBytes;
  const fullReason = grown ? "the disk's size changed" : planned.fullReason;
  const from = fullReason === undefined ? planned.from : undefined;
  return {
    session: sessionDisk(disk.key, info.sizeBytes, fullReason),
    state: {
      kind: "rbd",
      rbd: rbdReference(disk),
      snapshot: rbdSnapshotName(jobId),
      ...(from === undefined ? {} : { from }),
    },
    anchor: {
      kind: "rbd",
      image: disk.rbd.image,
      identity: disk.identity,
      snapshot: rbdSnapshotName(jobId),
      sizeBytes: info.sizeBytes,
    },
  };
}

export function rbdReference({ rbd }: RbdDisk) {
  return {
    image: rbd.image,
    ...(rbd.configFile === undefined ? {} : { configFile: rbd.configFile }),
    ...(rbd.user === undefined ? {} : { user: rbd.user }),
    ...(rbd.monitors === undefined ? {} : { monitors: [...rbd.monitors] }),
  };
}

export function sessionDisk(
  key: string,
  sizeBytes: number,
  fullReason: string | undefined,
): SessionDisk {
  return fullReason === undefined
    ? { key, sizeBytes, mode: "incremental", reason: "" }
    : { key, sizeBytes, mode: "full", reason: fullReason };
}

/** Beside the VM's own image, so that it has the same space and rights; block devices have no folder of their own. */
export function overlayPath(
  host: LibvirtHost,
  facts: VmFacts,
  disk: ImageDisk,
  jobId: string,
): string {
  const isDevice = disk.root.path.startsWith("/dev/");
  const folder = overlayFolderOf(host, disk);
  const stem =
    isDevice || host.overlayFolder !== undefined
      ? `${facts.uuid}-${disk.key}`
      : fileNameOf(disk.root.path).slice(0, 150);
  return `${folder}/${stem}.holdfast-${jobId}.overlay`;
}

export function overlayFolderOf(host: LibvirtHost, disk: ImageDisk): string {
  const isDevice = disk.root.path.startsWith("/dev/");
  return host.overlayFolder ?? (isDevice ? host.scratchFolder : folderOf(disk.root.path));
}

function isSameChain(a: readonly ImageLayer[], b: readonly ImageLayer[]): boolean {
  return a.length === b.length && a.every((layer, index) => layer.path === b[index]?.path);
}
