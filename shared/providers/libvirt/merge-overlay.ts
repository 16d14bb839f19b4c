import { Failure, isFailure } from "../../domain/failure.ts";
import { withDiskImage, withoutBacking } from "../../kvm-host/domain-xml.ts";
import { removeFile, runOnHost, statFile, writeFile } from "../../kvm-host/files.ts";
import { type ImageLayer, imageChain, imageFacts, isTopEmpty } from "../../kvm-host/image.ts";
import { virshMessage } from "../../kvm-host/virsh.ts";
import type { Ledger, LedgerEntry } from "../../ports/ledger.ts";
import type { Logger } from "../../ports/logger.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { isOwnOverlay, type OverlayDetails } from "./state.ts";

/**
 * Takes one of our overlays out of a VM's chain: its content goes into the image below, then the file is removed.
 * It commits into nothing but what the ledger recorded as the overlay's base, the VM's own image below, or another
 * of our overlays; a template further down stays untouched. What does not look as recorded is left for an operator.
 */
export type MergeContext = {
  readonly host: LibvirtHost;
  readonly uuid: string;
  readonly ledger: Ledger;
  readonly logger: Logger;
};

/** `merged`: nothing is left of it. `left`: it is not as recorded; the entry stays and the reason is logged. */
export type MergeResult = "merged" | "left";

const commitTimeoutMs = 12 * 3600 * 1000;

export async function mergeOverlay(
  context: MergeContext,
  entry: LedgerEntry,
  details: OverlayDetails,
): Promise<MergeResult> {
  const { host, uuid } = context;
  const { overlay, target } = details;
  const marks = marksOf(context, entry, details);
  const position = await findInChain(host, uuid, target, overlay);
  if (position === undefined) return removeUnused(context, details, marks);
  const { below } = position;
  if (below === undefined || !(await mayCommitInto(host, below, details))) {
    return leave(context, details, `the image below it is ${below?.path ?? "none"}`);
  }
  const { hasInternalSnapshots } = await imageFacts(host.connection, {
    path: overlay,
    format: "qcow2",
  });
  if (hasInternalSnapshots) {
    return leave(context, details, "it holds snapshots, which would be lost with it");
  }
  // What an earlier attempt said of it is out of date: the guest may have written since.
  await marks.clear();
  if (position.isRunning) {
    await marks.begin(await processOf(host, uuid));
    await commitLive(context, details, below, position.isActive);
  } else {
    await commitStopped(context, details, below);
    await marks.merged();
    await takeOutOfDefinition(context, details, below, position.above);
  }
  const after = await findInChain(host, uuid, target, overlay);
  if (after !== undefined) {
    throw new Failure("busy", { message: `the overlay ${overlay} is still in use; trying again` });
  }
  if (position.isRunning) await marks.merged();
  return removeUnused(context, details, marks);
}

type Position = {
  readonly isRunning: boolean;
  /** It is the image that the guest writes. */
  readonly isActive: boolean;
  readonly above: ImageLayer | undefined;
  readonly below: ImageLayer | undefined;
};

async function findInChain(
  host: LibvirtHost,
  uuid: string,
  target: string,
  overlay: string,
): Promise<Position | undefined> {
  const state = await host.virsh.try(["domstate", "--domain", uuid]);
  if (state.exitCode !== 0) {
    if (/failed to get domain/i.test(state.stderr)) return undefined;
    throw new Failure("host.command-failed", { message: virshMessage(state) });
  }
  const isRunning = !/shut off|crashed/.test(state.stdout);
  const domain = await host.virsh.domain(uuid, isRunning ? "live" : "inactive");
  const disk = domain.disks.find((candidate) => candidate.target === target);
  if (disk === undefined || (disk.source.kind !== "file" && disk.source.kind !== "block")) {
    return undefined;
  }
  const chain = await imageChain(host.connection, disk);
  const index = chain.findIndex((layer) => layer.path === overlay);
  if (index < 0) return undefined;
  return { isRunning, isActive: index === 0, above: chain[index - 1], below: chain[index + 1] };
}

async function mayCommitInto(
  host: LibvirtHost,
  below: ImageLayer,
  details: OverlayDetails,
): Promise<boolean> {
  if (isOwnOverlay(below.path)) return true;
  if (below.path !== details.root.path || below.format !== details.root.format) return false;
  const facts = await statFile(host.connection, below.path);
  return facts?.inode === details.rootInode;
}

async function commitLive(
  { host, uuid }: MergeContext,
  { target, overlay }: OverlayDetails,
  below: ImageLayer,
  isActive: boolean,
): Promise<void> {
  await endOldCommit(host, uuid, target);
  const direction = isActive ? ["--active", "--pivot"] : ["--top", overlay];
  await host.virsh.run(
    ["blockcommit", uuid, target, "--base", below.path, ...direction, "--wait"],
    { timeoutMs: commitTimeoutMs },
  );
}

/** A commit whose caller died is still there, waiting for its pivot. Other block jobs are not ours to end. */
async function endOldCommit(host: LibvirtHost, uuid: string, target: string): Promise<void> {
  const job = await host.virsh.try(["blockjob", uuid, target, "--info"]);
  const text = `${job.stdout}${job.stderr}`;
  if (/Block Commit/i.test(text)) {
    await host.virsh.run(["blockjob", uuid, target, "--abort"]);
  } else if (/: \[ *[0-9.]+ %\]/.test(text)) {
    throw new Failure("busy", {
      message: `disk ${target} has another block job: ${text.trim().slice(0, 200)}`,
    });
  }
}

/** QEMU's own locks keep the VM from starting while an image is written, and a tool from writing while it runs. */
async function commitStopped(
  { host, logger }: MergeContext,
  { overlay }: OverlayDetails,
  below: ImageLayer,
): Promise<void> {
  // -d: the overlay keeps its content, so that whoever still points to it reads the same.
  await runOnHost(host.connection, ["qemu-img", "commit", "-q", "-f", "qcow2", "-d", overlay], {
    timeoutMs: commitTimeoutMs,
  });
  logger.info("overlay merged while stopped", { overlay, into: below.path });
}

async function takeOutOfDefinition(
  { host, uuid }: MergeContext,
  { target }: OverlayDetails,
  below: ImageLayer,
  above: ImageLayer | undefined,
): Promise<void> {
  const { connection, virsh } = host;
  if (above !== undefined) {
    const to = ["-b", below.path, "-F", below.format, above.path];
    await runOnHost(connection, ["qemu-img", "rebase", "-u", "-f", "qcow2", ...to]);
  }
  const xml = await virsh.dumpXml(uuid, "inactive");
  const changed =
    above === undefined ? withDiskImage(xml, target, below) : withoutBacking(xml, target);
  const file = `${host.scratchFolder}/${uuid}-${target}.define.xml`;
  await runOnHost(connection, ["mkdir", "-p", "-m", "0711", host.scratchFolder]);
  await writeFile(connection, file, changed);
  try {
    await virsh.run(["define", "--file", file]);
  } finally {
    await removeFile(connection, file);
  }
}

/** The overlay is in no chain of this VM's disk. It may go if its content is elsewhere, or if it has none. */
async function removeUnused(
  context: MergeContext,
  details: OverlayDetails,
  marks: Marks,
): Promise<MergeResult> {
  const { connection } = context.host;
  const { overlay } = details;
  if ((await statFile(connection, overlay)) !== undefined) {
    const user = await findUser(context.host, overlay);
    if (user !== undefined) return leave(context, details, `the VM ${user} uses it`);
    const isMerged = await marks.isMerged(() => processOf(context.host, context.uuid));
    if (!isMerged && !(await isTopEmpty(connection, { path: overlay, format: "qcow2" }))) {
      return leave(context, details, "it is in no chain of the VM and holds data");
    }
    await removeFile(connection, overlay);
  }
  await marks.clear();
  return "merged";
}

/** Any VM of the host, running or defined, that mentions the file. */
async function findUser(host: LibvirtHost, path: string): Promise<string | undefined> {
  const uuids = (await host.virsh.run(["list", "--all", "--uuid"])).split(/\s+/).filter(Boolean);
  for (const uuid of uuids) {
    for (const which of ["live", "inactive"] as const) {
      const domain = await host.virsh.domain(uuid, which).catch((error: unknown) => {
        // Only a VM that is gone uses nothing; of all others it must be known before a file is removed.
        if (isFailure(error, "vm.gone")) return undefined;
        throw error;
      });
      const paths = domain?.disks.flatMap((disk) => [
        ...("path" in disk.source ? [disk.source.path] : []),
        ...disk.backing.map((layer) => layer.path),
      ]);
      if (paths?.includes(path)) return domain?.name;
    }
  }
  return undefined;
}

function leave(
  { logger, uuid }: MergeContext,
  { overlay, target }: OverlayDetails,
  reason: string,
): MergeResult {
  logger.error("overlay left for an operator", { uuid, target, overlay, reason });
  return "left";
}

/** libvirt's number of the running QEMU; undefined when none runs. A VM that was started again has another. */
async function processOf(host: LibvirtHost, uuid: string): Promise<string | undefined> {
  const id = await host.virsh.try(["domid", "--domain", uuid]);
  const number = id.stdout.trim();
  return id.exitCode === 0 && /^[0-9]+$/.test(number) ? number : undefined;
}

/**
 * What the ledger says of a merge, in case we die within it. `merged`: the content is in the image below. `begin`: a
 * live commit was begun in this very QEMU; when it no longer has the overlay, the commit came to its end, since
 * QEMU itself drops an image from a chain only once its content is elsewhere.
 */
type Marks = {
  begin(process: string | undefined): Promise<void>;
  merged(): Promise<void>;
  isMerged(processNow: () => Promise<string | undefined>): Promise<boolean>;
  clear(): Promise<void>;
};

function marksOf({ ledger }: MergeContext, entry: LedgerEntry, details: OverlayDetails): Marks {
  const { jobId } = entry;
  const mark = (kind: "overlay-merging" | "overlay-merged", more: Record<string, unknown>) =>
    ledger.intend({
      id: `${jobId}/${kind}/${details.target}`,
      jobId,
      kind,
      name: details.overlay,
      details: more,
      kept: false,
    });
  const find = async () =>
    (await ledger.list()).filter(
      (candidate) =>
        candidate.name === details.overlay && /^overlay-merg(ing|ed)$/.test(candidate.kind),
    );
  return {
    begin: (process) => mark("overlay-merging", process === undefined ? {} : { process }),
    merged: () => mark("overlay-merged", {}),
    isMerged: async (processNow) => {
      const found = await find();
      if (found.some(({ kind }) => kind === "overlay-merged")) return true;
      const process = found[0]?.details["process"];
      return process !== undefined && process === (await processNow());
    },
    clear: async () => {
      for (const { id } of await find()) await ledger.settle(id);
    },
  };
}
