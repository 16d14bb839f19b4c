import { Failure } from "../../domain/failure.ts";
import type { BackupOptions, Strategy } from "../../domain/policy.ts";
import type { DiskFacts, VmFacts } from "./vm-facts.ts";

export type StrategyChoice = { readonly strategy: Strategy; readonly reason: string };

/** libvirt's and QEMU's versions as numbers: 9.0.0 is 9000000. */
export type HostVersions = { readonly libvirt: number; readonly qemu: number };

const checkpointVersions: HostVersions = { libvirt: 7_006_000, qemu: 6_001_000 };

/**
 * `checkpoint` where the host can and every included disk is a qcow2 image that can hold a bitmap: it leaves nothing
 * in the disks' chains between backups. Otherwise `ssh-snapshot`, which tracks raw and RBD disks too. A VM with
 * mixed disks may ask for `checkpoint`: then its other disks are read in full, at the same moment.
 */
export function chooseStrategy(
  facts: VmFacts,
  disks: readonly DiskFacts[],
  versions: HostVersions,
  wanted: BackupOptions["strategy"],
): StrategyChoice {
  const obstacle = checkpointObstacle(facts, versions);
  if (wanted === "checkpoint" && obstacle !== undefined) {
    throw new Failure("vm.unsupported", {
      message: `${facts.domain.name} cannot use the strategy checkpoint: ${obstacle}`,
    });
  }
  if (wanted !== "auto") return { strategy: wanted, reason: "chosen by the policy" };
  const other = obstacle ?? disks.map(untracked).find((reason) => reason !== undefined);
  return other === undefined
    ? { strategy: "checkpoint", reason: "every disk is a qcow2 image that can hold a bitmap" }
    : { strategy: "ssh-snapshot", reason: other };
}

function checkpointObstacle(facts: VmFacts, versions: HostVersions): string | undefined {
  if (versions.libvirt < checkpointVersions.libvirt || versions.qemu < checkpointVersions.qemu) {
    return "it needs libvirt 7.6 and QEMU 6.1 on the host";
  }
  if (facts.hasSnapshots) return "the VM has libvirt snapshots";
  return undefined;
}

/** Why a disk cannot hold a bitmap; undefined when it can. */
export function untracked(facts: DiskFacts): string | undefined {
  if (facts.kind === "rbd") return `disk ${facts.key} is an RBD image`;
  if (facts.kind === "unsupported") return `disk ${facts.key}: ${facts.problem}`;
  const [active] = facts.chain;
  if (active.path !== facts.root.path) return `disk ${facts.key} is on an overlay of ours`;
  if (active.format !== "qcow2") return `disk ${facts.key} is raw`;
  if (facts.image.compat === "0.10") {
    return `disk ${facts.key} is qcow2 version 2 (qemu-img amend -o compat=1.1 changes that)`;
  }
  if (facts.image.hasInternalSnapshots) return `disk ${facts.key} has internal snapshots`;
  return undefined;
}

/** Reads `virsh version`. */
export function parseVersions(output: string): HostVersions {
  const number = (pattern: RegExp): number => {
    const [, major, minor, micro] = pattern.exec(output) ?? [];
    return Number(major ?? 0) * 1_000_000 + Number(minor ?? 0) * 1000 + Number(micro ?? 0);
  };
  return {
    libvirt: number(/libvirt ([0-9]+)\.([0-9]+)\.([0-9]+)/),
    qemu: number(/hypervisor: QEMU ([0-9]+)\.([0-9]+)\.([0-9]+)/),
  };
}
