import { asFailure } from "../../domain/failure.ts";
import type { PowerState, VmDescription, VmDisk } from "../../domain/vm.ts";
import type { Domain, DomainDisk } from "../../kvm-host/domain-xml.ts";
import {
  type ImageChain,
  type ImageFacts,
  type ImageLayer,
  imageChain,
  imageFacts,
} from "../../kvm-host/image.ts";
import { type RbdImage, rbdInfo } from "../../kvm-host/rbd.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { isOwnOverlay } from "./state.ts";

/** What is known of a VM on its host at one moment. */
export type VmFacts = {
  readonly uuid: string;
  readonly power: PowerState;
  /** A QEMU process runs it, paused or not. */
  readonly isActive: boolean;
  readonly isPersistent: boolean;
  readonly domain: Domain;
  readonly disks: readonly DiskFacts[];
  /** It has snapshots that libvirt knows. */
  readonly hasSnapshots: boolean;
};

export type DiskFacts = {
  readonly key: string;
  readonly disk: DomainDisk;
  readonly sizeBytes: number;
} & (
  | {
      readonly kind: "image";
      readonly chain: ImageChain;
      /** The VM's own image: the first of the chain that is none of our overlays. */
      readonly root: ImageLayer;
      /** Of the active image. */
      readonly image: ImageFacts;
    }
  | { readonly kind: "rbd"; readonly rbd: RbdImage; readonly identity: string }
  | { readonly kind: "unsupported"; readonly problem: string }
);

/** Fails with `vm.gone`. A disk that cannot be backed up is a fact, not a failure. */
export async function lookAtVm(host: LibvirtHost, uuid: string): Promise<VmFacts> {
  const state = await host.virsh.state(uuid);
  const isActive = state !== "shut off" && state !== "crashed";
  const domain = await host.virsh.domain(uuid, isActive ? "live" : "inactive");
  const snapshots = await host.virsh.run(["snapshot-list", "--domain", uuid, "--name"]);
  const info = await host.virsh.run(["dominfo", "--domain", uuid]);
  const disks: DiskFacts[] = [];
  for (const disk of domain.disks) disks.push(await lookAtDisk(host, disk));
  return {
    uuid,
    power: powerOf(state),
    isActive,
    isPersistent: /^Persistent:\s+yes$/m.test(info),
    domain,
    disks,
    hasSnapshots: snapshots.trim() !== "",
  };
}

function powerOf(state: string): PowerState {
  if (state === "running" || state === "idle" || state === "in shutdown") return "running";
  if (state === "paused" || state === "pmsuspended" || state === "blocked") return "paused";
  return state === "shut off" || state === "crashed" ? "stopped" : "unknown";
}

async function lookAtDisk(host: LibvirtHost, disk: DomainDisk): Promise<DiskFacts> {
  const key = disk.target;
  try {
    if (disk.source.kind === "rbd") {
      const rbd = disk.source;
      const { sizeBytes, identity } = await rbdInfo(host.connection, rbd);
      return { key, disk, sizeBytes, kind: "rbd", rbd, identity };
    }
    if (disk.source.kind === "other") {
      return { key, disk, sizeBytes: 0, kind: "unsupported", problem: disk.source.description };
    }
    const chain = await imageChain(host.connection, disk);
    const image = await imageFacts(host.connection, chain[0]);
    const root = chain.find((layer) => !isOwnOverlay(layer.path)) ?? chain[0];
    return { key, disk, sizeBytes: image.sizeBytes, kind: "image", chain, root, image };
  } catch (error) {
    const { message } = asFailure(error, "vm.unsupported", `disk ${key}`);
    return { key, disk, sizeBytes: 0, kind: "unsupported", problem: message };
  }
}

/** As the VM is without our overlays. Disks that cannot be backed up are left out. */
export function describeVm(facts: VmFacts): VmDescription {
  const { domain } = facts;
  return {
    name: domain.name,
    uuid: domain.uuid,
    memoryBytes: domain.memoryBytes,
    vcpus: domain.vcpus,
    architecture: domain.architecture,
    firmware: domain.firmware,
    disks: facts.disks.flatMap(describeDisk),
    nics: domain.nics,
    tags: [],
  };
}

function describeDisk(facts: DiskFacts): VmDisk[] {
  if (facts.kind === "unsupported") return [];
  const { disk } = facts;
  return [
    {
      key: facts.key,
      sizeBytes: facts.sizeBytes,
      bus: disk.bus,
      format: facts.kind === "rbd" ? "raw" : facts.root.format,
      storage: facts.kind === "rbd" ? "rbd" : disk.source.kind === "block" ? "block" : "file",
      location: facts.kind === "rbd" ? facts.rbd.image : facts.root.path,
      ...(disk.serial === undefined ? {} : { serial: disk.serial }),
      readOnly: disk.readOnly,
      shareable: disk.shareable,
    },
  ];
}
