import { withDiskImage } from "../../kvm-host/domain-xml.ts";
import { runOnHost } from "../../kvm-host/files.ts";
import { find, parseXml, printXml, removeChildren, textOf } from "../../kvm-host/xml-tree.ts";
import type { BackupSession, DriverContext, VmMetadata } from "../../ports/driver.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { sessionState } from "./state.ts";
import { describeVm, lookAtVm, type VmFacts } from "./vm-facts.ts";

const nvramBytesMax = 16 * 1024 * 1024;

/** The domain as it is defined, with its own images in place of our overlays; UEFI variables as they are now. */
export async function readMetadata(
  host: LibvirtHost,
  session: BackupSession,
  { logger }: DriverContext,
): Promise<VmMetadata> {
  const facts = await lookAtVm(host, session.externalId);
  const xml = await host.virsh.dumpXml(
    session.externalId,
    facts.isPersistent ? "inactive" : "live",
  );
  const nvram = facts.domain.nvram ?? textOf(find(parseXml(xml), "os", "nvram"));
  const documents: Record<string, string> = { "domain.xml": withoutOverlays(xml, facts) };
  if (nvram !== undefined && nvram !== "") {
    const content = await readNvram(host, nvram);
    if (content === undefined) logger.warn("no UEFI variables found", { nvram });
    else documents["nvram.base64"] = content;
  }
  return {
    providerKind: "libvirt",
    description: describeVm(facts),
    excludedDisks: sessionState(session).excluded,
    documents,
  };
}

/** Undefined when the VM was never started, so that there are none yet. */
async function readNvram(host: LibvirtHost, path: string): Promise<string | undefined> {
  const exists = await host.connection.run(["test", "-f", path]);
  if (exists.exitCode !== 0) return undefined;
  const output = await runOnHost(host.connection, ["base64", "-w", "0", "--", path], {
    outputBytesMax: nvramBytesMax,
  });
  return output.trim();
}

function withoutOverlays(xml: string, facts: VmFacts): string {
  let document = xml;
  for (const disk of facts.disks) {
    if (disk.kind === "image" && disk.root.path !== disk.chain[0].path) {
      document = withDiskImage(document, disk.key, disk.root);
    }
  }
  const root = parseXml(document);
  // A description of the chain as it was on that host at that time; a restored disk has none.
  for (const disk of find(root, "devices")?.children ?? []) {
    if ("name" in disk && disk.name === "disk") removeChildren(disk, "backingStore");
  }
  return printXml(root);
}
