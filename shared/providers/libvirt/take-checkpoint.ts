import { Failure } from "../../domain/failure.ts";
import { backupXml, checkpointXml } from "../../kvm-host/domain-xml.ts";
import { makeFolder, statFile, writeFile } from "../../kvm-host/files.ts";
import { virshFailure, virshMessage } from "../../kvm-host/virsh.ts";
import type { DriverContext, SessionDisk } from "../../ports/driver.ts";
import { untracked } from "./choose-strategy.ts";
import { jobFolder, type LibvirtHost } from "./libvirt-host.ts";
import type { BackupPlan, PlannedDisk } from "./plan-backup.ts";
import {
  type AnchorDisk,
  type CheckpointDetails,
  checkpointName,
  type DiskState,
} from "./state.ts";
import { sessionDisk, type Taken } from "./take-overlays.ts";
import type { VmFacts } from "./vm-facts.ts";

/**
 * Strategy checkpoint: libvirt's pull backup over all disks, with a new checkpoint made at the same moment. QEMU
 * copies what the guest overwrites into scratch files meanwhile, and exports the frozen disks on a Unix socket.
 * Which disks are incremental is settled here: a bitmap that QEMU calls broken turns its disk into a full one.
 */
export type CheckpointFiles = {
  readonly folder: string;
  readonly socket: string;
};

export async function prepareCheckpoint(
  host: LibvirtHost,
  facts: VmFacts,
  plan: BackupPlan,
  context: DriverContext,
  forIncremental: boolean,
): Promise<CheckpointFiles> {
  const { jobId, ledger } = context;
  const folder = jobFolder(host, jobId);
  const socket = `${folder}/backup.sock`;
  const entry = { jobId, kept: false };
  const images: CheckpointDetails["images"] = {};
  for (const { facts: disk } of plan.disks) {
    if (disk.kind !== "image" || untracked(disk) !== undefined) continue;
    const file = await statFile(host.connection, disk.chain[0].path);
    if (file !== undefined) images[disk.key] = { path: disk.chain[0].path, inode: file.inode };
  }
  await ledger.intend({
    ...entry,
    id: `${jobId}/backup-job/pull`,
    kind: "backup-job",
    name: socket,
    details: {},
  });
  if (forIncremental && Object.keys(images).length > 0) {
    await ledger.intend({
      ...entry,
      id: `${jobId}/checkpoint/vm`,
      kind: "checkpoint",
      name: checkpointName(jobId),
      details: { images, forIncremental } satisfies CheckpointDetails,
    });
  }
  await makeFolder(host.connection, folder, facts.domain.qemuOwner);
  const tracked = plan.disks.map(({ facts: disk }) => ({
    target: disk.key,
    tracked: images[disk.key] !== undefined,
  }));
  await writeFile(
    host.connection,
    `${folder}/checkpoint.xml`,
    checkpointXml(checkpointName(jobId), [...tracked, ...others(facts, plan)]),
  );
  return { folder, socket };
}

function others(facts: VmFacts, plan: BackupPlan) {
  const included = plan.disks.map(({ facts: disk }) => disk.key);
  return facts.domain.disks
    .filter(({ target }) => !included.includes(target))
    .map(({ target }) => ({ target, tracked: false }));
}

/** Made while the guest is frozen, if it can be. Answers with the disks as they are read in the end. */
export async function beginBackup(
  host: LibvirtHost,
  facts: VmFacts,
  plan: BackupPlan,
  files: CheckpointFiles,
  forIncremental: boolean,
): Promise<readonly PlannedDisk[]> {
  let disks = plan.disks;
  // Each refusal for a bitmap takes that disk out of the incremental ones, so this ends.
  for (let attempt = 0; attempt <= plan.disks.length + 1; attempt++) {
    await writeFile(
      host.connection,
      `${files.folder}/backup.xml`,
      backupXml(
        files.socket,
        disks.map(({ facts: disk, fullReason }) => ({
          target: disk.key,
          scratch: `${files.folder}/${disk.key}.scratch`,
          incremental: fullReason === undefined ? plan.checkpoint : undefined,
        })),
      ),
    );
    const tracks = forIncremental && disks.some(({ facts: disk }) => untracked(disk) === undefined);
    const checkpoint = tracks ? ["--checkpointxml", `${files.folder}/checkpoint.xml`] : [];
    const command = [
      "backup-begin",
      "--domain",
      facts.uuid,
      "--backupxml",
      `${files.folder}/backup.xml`,
      ...checkpoint,
    ] as const;
    const result = await host.virsh.try(command, { timeoutMs: 120_000 });
    if (result.exitCode === 0) return disks;
    const broken = brokenDisks(virshMessage(result), disks);
    if (broken.length === 0) throw virshFailure(command, result);
    disks = disks.map((disk) =>
      broken.includes(disk.facts.key)
        ? { ...disk, fullReason: `its bitmap is not usable: ${virshMessage(result)}` }
        : disk,
    );
  }
  throw new Failure("vm.snapshot-failed", { message: "libvirt refuses every form of the backup" });
}

/** The incremental disks that a refusal speaks of; all of them when it speaks of bitmaps but of no disk. */
function brokenDisks(message: string, disks: readonly PlannedDisk[]): readonly string[] {
  if (!/bitmap|checkpoint/i.test(message)) return [];
  const incremental = disks.filter(({ fullReason }) => fullReason === undefined);
  const keys = incremental.map(({ facts }) => facts.key);
  const named = keys.filter((key) => message.includes(`'${key}'`));
  return named.length > 0 ? named : keys;
}

export async function describeCheckpoint(
  host: LibvirtHost,
  disks: readonly PlannedDisk[],
  files: CheckpointFiles,
  jobId: string,
): Promise<Taken> {
  const session: SessionDisk[] = [];
  const states: Record<string, DiskState> = {};
  const anchorDisks: Record<string, AnchorDisk> = {};
  const warnings: string[] = [];
  for (const { facts: disk, fullReason } of disks) {
    session.push(sessionDisk(disk.key, disk.sizeBytes, fullReason));
    states[disk.key] = { kind: "job-export", incremental: fullReason === undefined };
    const reason = untracked(disk);
    if (reason !== undefined) {
      warnings.push(`${reason}: this strategy reads it in full each time`);
    } else if (disk.kind === "image") {
      const [active] = disk.chain;
      const file = await statFile(host.connection, active.path);
      const inode = file?.inode ?? "";
      anchorDisks[disk.key] = {
        kind: "checkpoint",
        path: active.path,
        inode,
        sizeBytes: disk.sizeBytes,
      };
    }
  }
  return {
    disks: session,
    states,
    anchorDisks,
    checkpoint: checkpointName(jobId),
    socket: files.socket,
    warnings,
  };
}
