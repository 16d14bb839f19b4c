import {
  attribute,
  childrenOf,
  find,
  isElement,
  newElement,
  parseXml,
  printXml,
  removeChildren,
  setAttribute,
  setText,
  textOf,
  type XmlElement,
} from "../../kvm-host/xml-tree.ts";
import { fileSafe, macOf, type RestoredDisk } from "./restore-plan.ts";

export type DefinitionChange = {
  readonly name: string;
  readonly uuid: string;
  /** Keeps MAC addresses and the generation id. */
  readonly keepIdentity: boolean;
  readonly jobId: string;
  readonly disks: readonly RestoredDisk[];
  readonly nvram: string | undefined;
  /** Files that exist on the target host, of those that the definition names for removable drives. */
  readonly presentFiles: ReadonlySet<string>;
};

/** The definition of the restored VM: the original's, with other names, disks and addresses, and nothing transient. */
export function rewriteDefinition(xml: string, change: DefinitionChange): string {
  const root = parseXml(xml);
  delete root.attributes["id"];
  const oldName = textOf(find(root, "name")) ?? "";
  setChildText(root, "name", change.name);
  setChildText(root, "uuid", change.uuid);
  // libvirt makes its own at each start.
  root.children = root.children.filter(
    (child) =>
      !(isElement(child) && child.name === "seclabel" && attribute(child, "type") !== "static"),
  );
  if (!change.keepIdentity) removeChildren(root, "genid");
  const os = find(root, "os");
  const nvram = find(os, "nvram");
  if (nvram !== undefined && change.nvram !== undefined) setText(nvram, change.nvram);
  const devices = find(root, "devices");
  if (devices !== undefined) {
    rewriteDevices(devices, change);
    if (oldName !== change.name) renameLogs(devices, oldName, change.name);
  }
  return printXml(root);
}

/** The files in removable drives. */
export function removableFiles(xml: string): readonly string[] {
  return childrenOf(find(parseXml(xml), "devices"), "disk")
    .filter((disk) => (attribute(disk, "device") ?? "disk") !== "disk")
    .flatMap((disk) => attribute(find(disk, "source"), "file") ?? []);
}

function rewriteDevices(devices: XmlElement, change: DefinitionChange): void {
  devices.children = devices.children.filter((child) => {
    if (!isElement(child) || child.name !== "disk") return true;
    const device = attribute(child, "device") ?? "disk";
    if (device === "cdrom" || device === "floppy") {
      const file = attribute(find(child, "source"), "file");
      if (file === undefined || !change.presentFiles.has(file)) removeChildren(child, "source");
      return true;
    }
    const target = attribute(find(child, "target"), "dev");
    const disk = change.disks.find(({ key }) => key === target);
    if (disk === undefined) return false;
    rewriteDisk(child, disk);
    return true;
  });
  childrenOf(devices, "interface").forEach((nic, index) => {
    const mac = find(nic, "mac");
    if (mac !== undefined && !change.keepIdentity) {
      setAttribute(mac, "address", macOf(change.jobId, index));
    }
    removeChildren(nic, "target");
  });
  for (const channel of childrenOf(devices, "channel")) {
    const path = attribute(find(channel, "source"), "path");
    if (path?.startsWith("/var/lib/libvirt/qemu/")) removeChildren(channel, "source");
  }
}

/** A console's log file belongs to one VM: two that write the same one cannot both run. */
function renameLogs(devices: XmlElement, oldName: string, newName: string): void {
  const rename = (element: XmlElement | undefined, name: string): void => {
    const path = attribute(element, name);
    if (element === undefined || path === undefined) return;
    const slash = path.lastIndexOf("/") + 1;
    const file = path.slice(slash);
    const safe = fileSafe(newName);
    const renamed = file.includes(oldName) ? file.replace(oldName, safe) : `${safe}-${file}`;
    setAttribute(element, name, path.slice(0, slash) + renamed);
  };
  for (const kind of ["serial", "console", "parallel", "channel"]) {
    for (const device of childrenOf(devices, kind)) {
      if (attribute(device, "type") === "file") rename(find(device, "source"), "path");
      rename(find(device, "log"), "file");
    }
  }
}

function rewriteDisk(element: XmlElement, disk: RestoredDisk): void {
  removeChildren(element, "backingStore", "mirror");
  const source = find(element, "source");
  const driver = find(element, "driver");
  if (driver === undefined) {
    element.children.unshift(newElement("driver", { name: "qemu" }));
  }
  const format = disk.kind === "rbd" ? "raw" : disk.format;
  const written = find(element, "driver");
  if (written !== undefined) setAttribute(written, "type", format);
  const wasRbd = attribute(source, "protocol") === "rbd";
  if (disk.kind === "rbd" && source !== undefined && wasRbd) {
    setAttribute(source, "name", disk.final);
    return;
  }
  const replacement =
    disk.kind === "rbd" ? rbdSource(disk) : newElement("source", { file: disk.final });
  setAttribute(element, "type", disk.kind === "rbd" ? "network" : "file");
  removeChildren(element, "source", "auth", "encryption");
  element.children.unshift(replacement);
}

function rbdSource(disk: Extract<RestoredDisk, { readonly kind: "rbd" }>): XmlElement {
  const { configFile, monitors } = disk.rbd;
  const hosts = (monitors ?? []).map((monitor) => {
    const colon = monitor.lastIndexOf(":");
    return newElement("host", { name: monitor.slice(0, colon), port: monitor.slice(colon + 1) });
  });
  const config = configFile === undefined ? [] : [newElement("config", { file: configFile })];
  return newElement("source", { protocol: "rbd", name: disk.final }, [...hosts, ...config]);
}

function setChildText(root: XmlElement, name: string, text: string): void {
  const child = find(root, name);
  if (child === undefined) root.children.unshift(newElement(name, {}, [text]));
  else setText(child, text);
}
