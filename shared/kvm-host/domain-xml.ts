import { Failure } from "../domain/failure.ts";
import type { Firmware, VmNic } from "../domain/vm.ts";
import {
  attribute,
  childrenOf,
  find,
  newElement,
  parseXml,
  printXml,
  removeAttributes,
  removeChildren,
  setAttribute,
  textOf,
  type XmlElement,
} from "./xml-tree.ts";

/** What a libvirt domain's XML says, as far as backup and restore need it. */
export type Domain = {
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly architecture: string;
  readonly firmware: Firmware;
  /** The file with the UEFI variables. */
  readonly nvram: string | undefined;
  /** Disks only: no CD-ROM, floppy or empty drive. */
  readonly disks: readonly DomainDisk[];
  /** Targets of drives that are no disks: CD-ROM, floppy. */
  readonly otherTargets: readonly string[];
  readonly nics: readonly VmNic[];
  /** User and group of the running QEMU, `+64055:+64055`; undefined when it is not running. */
  readonly qemuOwner: { readonly user: string; readonly group: string } | undefined;
  readonly hasAgentChannel: boolean;
};

export type DomainDisk = {
  readonly target: string;
  readonly bus: string;
  readonly format: string;
  readonly serial: string | undefined;
  readonly readOnly: boolean;
  readonly shareable: boolean;
  readonly source: DiskSource;
  /** Images below the active one, nearest first, as libvirt states them; empty when it does not say. */
  readonly backing: readonly { readonly format: string; readonly path: string }[];
  /** libvirt stated where the chain ends. A definition often leaves the chain to be found at the start. */
  readonly backingIsComplete: boolean;
};

export type DiskSource =
  | { readonly kind: "file" | "block"; readonly path: string }
  | {
      readonly kind: "rbd";
      /** `pool/image`. */
      readonly image: string;
      readonly configFile: string | undefined;
      readonly user: string | undefined;
      /** `host:port` of monitors. */
      readonly monitors: readonly string[];
    }
  | { readonly kind: "other"; readonly description: string };

const disksMax = 1024;
const chainLengthMax = 200;

/** Fails with `host.output-invalid`. */
export function parseDomain(xml: string): Domain {
  const root = parseXml(xml);
  if (root.name !== "domain") throw invalid(`<domain> expected, <${root.name}> found`);
  const name = textOf(find(root, "name"));
  const uuid = textOf(find(root, "uuid"));
  if (!name || !uuid) throw invalid("a domain without name or UUID");
  const os = find(root, "os");
  const nvram = textOf(find(os, "nvram"));
  const devices = find(root, "devices");
  const disks = childrenOf(devices, "disk");
  if (disks.length > disksMax) throw invalid(`a domain with ${disks.length} disks`);
  return {
    name,
    uuid,
    memoryBytes: memoryBytes(find(root, "memory")),
    vcpus: Number(textOf(find(root, "vcpu")) ?? 1),
    architecture: attribute(find(os, "type"), "arch") ?? "x86_64",
    firmware: isUefi(os) ? "uefi" : "bios",
    nvram: nvram === "" ? undefined : nvram,
    disks: disks.flatMap(parseDisk),
    otherTargets: disks
      .filter((disk) => parseDisk(disk).length === 0)
      .flatMap((disk) => attribute(find(disk, "target"), "dev") ?? []),
    nics: childrenOf(devices, "interface").map(parseNic),
    qemuOwner: parseOwner(root),
    hasAgentChannel: childrenOf(devices, "channel").some(
      (channel) => attribute(find(channel, "target"), "name") === "org.qemu.guest_agent.0",
    ),
  };
}

function isUefi(os: XmlElement | undefined): boolean {
  return attribute(os, "firmware") === "efi" || attribute(find(os, "loader"), "type") === "pflash";
}

const memoryUnits: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  KB: 1000,
  k: 1024,
  KiB: 1024,
  MB: 1000 ** 2,
  M: 1024 ** 2,
  MiB: 1024 ** 2,
  GB: 1000 ** 3,
  G: 1024 ** 3,
  GiB: 1024 ** 3,
  TB: 1000 ** 4,
  T: 1024 ** 4,
  TiB: 1024 ** 4,
};

function memoryBytes(memory: XmlElement | undefined): number {
  const bytes = Number(textOf(memory)) * (memoryUnits[attribute(memory, "unit") ?? "KiB"] ?? 1024);
  return Number.isSafeInteger(bytes) ? bytes : 0;
}

function parseDisk(disk: XmlElement): DomainDisk[] {
  const device = attribute(disk, "device") ?? "disk";
  const target = attribute(find(disk, "target"), "dev");
  const source = parseSource(disk);
  if (device === "lun" && target !== undefined) {
    return [describeDisk(disk, target, { kind: "other", description: "a passed-through LUN" })];
  }
  if (device !== "disk" || target === undefined || source === undefined) return [];
  return [describeDisk(disk, target, source)];
}

function describeDisk(disk: XmlElement, target: string, source: DiskSource): DomainDisk {
  const chain = parseBacking(disk);
  return {
    target,
    bus: attribute(find(disk, "target"), "bus") ?? "",
    format: attribute(find(disk, "driver"), "type") ?? "raw",
    serial: textOf(find(disk, "serial")),
    readOnly: find(disk, "readonly") !== undefined,
    shareable: find(disk, "shareable") !== undefined,
    source,
    backing: chain.layers,
    backingIsComplete: chain.isComplete,
  };
}

function parseSource(disk: XmlElement): DiskSource | undefined {
  const source = find(disk, "source");
  const type = attribute(disk, "type");
  if (source === undefined) return undefined;
  const file = attribute(source, "file");
  const device = attribute(source, "dev");
  const encrypted = find(source, "encryption") ?? find(disk, "encryption");
  if (encrypted !== undefined && type !== "network") {
    return { kind: "other", description: "a disk that QEMU decrypts" };
  }
  if (type === "file" && file !== undefined) return { kind: "file", path: file };
  if (type === "block" && device !== undefined) return { kind: "block", path: device };
  const protocol = attribute(source, "protocol");
  const image = attribute(source, "name");
  if (type === "network" && protocol === "rbd" && image !== undefined) {
    return {
      kind: "rbd",
      image,
      configFile: attribute(find(source, "config"), "file"),
      user: attribute(find(source, "auth") ?? find(disk, "auth"), "username"),
      monitors: childrenOf(source, "host").map(
        (host) => `${attribute(host, "name") ?? ""}:${attribute(host, "port") ?? "6789"}`,
      ),
    };
  }
  return { kind: "other", description: `type ${type ?? "?"} ${protocol ?? ""}`.trim() };
}

function parseBacking(disk: XmlElement): { layers: DomainDisk["backing"]; isComplete: boolean } {
  const layers: { format: string; path: string }[] = [];
  let store = find(disk, "backingStore");
  while (store !== undefined) {
    const source = find(store, "source");
    const path = attribute(source, "file") ?? attribute(source, "dev");
    if (path === undefined) return { layers, isComplete: source === undefined };
    layers.push({ format: attribute(find(store, "format"), "type") ?? "raw", path });
    if (layers.length > chainLengthMax) throw invalid("a disk with an endless backing chain");
    store = find(store, "backingStore");
  }
  return { layers, isComplete: false };
}

function parseNic(nic: XmlElement): VmNic {
  const source = find(nic, "source");
  return {
    mac: attribute(find(nic, "mac"), "address") ?? "",
    network:
      attribute(source, "network") ?? attribute(source, "bridge") ?? attribute(source, "dev") ?? "",
    model: attribute(find(nic, "model"), "type") ?? "",
  };
}

function parseOwner(root: XmlElement): Domain["qemuOwner"] {
  const label = childrenOf(root, "seclabel").find((child) => attribute(child, "model") === "dac");
  const match = /^\+?([0-9]+):\+?([0-9]+)$/.exec(textOf(find(label, "label")) ?? "");
  const [, user, group] = match ?? [];
  return user === undefined || group === undefined ? undefined : { user, group };
}

/** The definition with another image (and chain below it) for one disk. */
export function withDiskImage(
  xml: string,
  target: string,
  image: { readonly path: string; readonly format: string },
): string {
  const root = parseXml(xml);
  const disk = diskElement(root, target);
  const source = find(disk, "source");
  const driver = find(disk, "driver");
  if (disk === undefined || source === undefined || driver === undefined) {
    throw invalid(`the definition has no disk ${target} with a source`);
  }
  // An overlay over a block device is a file: going back changes the disk's type, too.
  const isDevice = image.path.startsWith("/dev/");
  setAttribute(disk, "type", isDevice ? "block" : "file");
  removeAttributes(source, "file", "dev");
  setAttribute(source, isDevice ? "dev" : "file", image.path);
  setAttribute(driver, "type", image.format);
  removeChildren(disk, "backingStore");
  return printXml(root);
}

/** The definition without the chain below one disk, so that the next start finds it in the image. */
export function withoutBacking(xml: string, target: string): string {
  const root = parseXml(xml);
  const disk = diskElement(root, target);
  if (disk !== undefined) removeChildren(disk, "backingStore");
  return printXml(root);
}

export function diskElement(root: XmlElement, target: string): XmlElement | undefined {
  return childrenOf(find(root, "devices"), "disk").find(
    (disk) => attribute(find(disk, "target"), "dev") === target,
  );
}

/** `<domainbackup>` in pull mode on a Unix socket. */
export function backupXml(
  socket: string,
  disks: readonly {
    readonly target: string;
    readonly scratch: string;
    readonly incremental: string | undefined;
  }[],
): string {
  return printXml(
    newElement("domainbackup", { mode: "pull" }, [
      newElement("server", { transport: "unix", socket }),
      newElement(
        "disks",
        {},
        disks.map(({ target, scratch, incremental }) =>
          newElement(
            "disk",
            {
              name: target,
              backup: "yes",
              type: "file",
              ...(incremental === undefined
                ? { backupmode: "full" }
                : { backupmode: "incremental", incremental }),
              exportname: target,
              ...(incremental === undefined ? {} : { exportbitmap: `backup-${target}` }),
            },
            [newElement("scratch", { file: scratch })],
          ),
        ),
      ),
    ]),
  );
}

export function checkpointXml(
  name: string,
  disks: readonly { readonly target: string; readonly tracked: boolean }[],
): string {
  return printXml(
    newElement("domaincheckpoint", {}, [
      newElement("name", {}, [name]),
      newElement(
        "disks",
        {},
        disks.map(({ target, tracked }) =>
          newElement("disk", { name: target, checkpoint: tracked ? "bitmap" : "no" }),
        ),
      ),
    ]),
  );
}

/** The disks that a checkpoint tracks, from `checkpoint-dumpxml`. */
export function parseCheckpointDisks(xml: string): readonly string[] {
  return childrenOf(find(parseXml(xml), "disks"), "disk")
    .filter((disk) => attribute(disk, "checkpoint") === "bitmap")
    .flatMap((disk) => attribute(disk, "name") ?? []);
}

/** The socket of a running backup job, from `backup-dumpxml`. */
export function parseBackupSocket(xml: string): string | undefined {
  return attribute(find(parseXml(xml), "server"), "socket");
}

function invalid(message: string): Failure {
  return new Failure("host.output-invalid", { message });
}
