import { Failure } from "../../domain/failure.ts";
import { removeFile, runOnHost, statFile } from "../../kvm-host/files.ts";
import { startNbdExport, stopNbdExport } from "../../kvm-host/nbd-export.ts";
import { rbdExists, rbdInfo, rbdName, removeRbdImage, renameRbdImage } from "../../kvm-host/rbd.ts";
import { virshMessage } from "../../kvm-host/virsh.ts";
import type { DiskWriter } from "../../ports/disk.ts";
import type { DriverContext, RestoredVm, RestoreSession } from "../../ports/driver.ts";
import { type LibvirtDriverOptions, type LibvirtHost, openLibvirtHost } from "./libvirt-host.ts";
import { findDomain, intend } from "./prepare-restore.ts";
import { type RestoredDisk, RestoreState } from "./restore-plan.ts";
import { parseState, RbdReference } from "./state.ts";
import { sweep } from "./sweep.ts";
import { lookAtVm } from "./vm-facts.ts";

/** The writer owns its connection and its export. A disk has one writer: an older one of this job is ended first. */
export async function openRestoreTarget(
  options: LibvirtDriverOptions,
  session: RestoreSession,
  diskKey: string,
  context: DriverContext,
): Promise<DiskWriter> {
  const state = restoreState(session);
  const disk = state.disks.find(({ key }) => key === diskKey);
  if (disk === undefined) {
    throw new Failure("not-found", { message: `the restore has no disk ${diskKey}` });
  }
  const host = await openLibvirtHost(options, context.signal);
  const open = new AsyncDisposableStack();
  open.use(host);
  try {
    await stopExports(host, context, diskKey);
    const unique = `${diskKey}-${host.clock.now().toString(36)}${Math.trunc(performance.now())}`;
    const socket = `${state.folder}/${unique}`;
    await intend(context, "nbd", socket, { diskKey });
    open.defer(async () => {
      await stopNbdExport(host.connection, socket);
      await context.ledger.settle(`${context.jobId}/restore-nbd/${socket}`);
    });
    await startNbdExport(host.connection, {
      socket,
      exportName: diskKey,
      access: "write",
      ...(disk.kind === "rbd"
        ? { image: rbdName(disk.rbd), format: "raw" }
        : { image: disk.partial, format: disk.format }),
    });
    const writer = await host.transports.openNbdForWriting(
      { kind: "unix", path: socket, via: host.connection },
      // Made empty by prepareRestore; an earlier attempt of this job wrote the same bytes in the same places.
      { exportName: diskKey, startsZeroed: true, signal: context.signal },
    );
    open.use(writer);
    return wrapWriter(writer, open);
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}

function wrapWriter(writer: DiskWriter, open: AsyncDisposableStack): DiskWriter {
  return {
    sizeBytes: writer.sizeBytes,
    startsZeroed: writer.startsZeroed,
    writesMax: writer.writesMax,
    writeBytesMax: writer.writeBytesMax,
    write: (offset, data, options) => writer.write(offset, data, options),
    zero: (offset, length, options) => writer.zero(offset, length, options),
    flush: () => writer.flush(),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

async function stopExports(
  host: LibvirtHost,
  { jobId, ledger }: DriverContext,
  diskKey?: string,
): Promise<void> {
  for (const entry of await ledger.list()) {
    if (entry.jobId !== jobId || entry.kind !== "restore-nbd") continue;
    if (diskKey !== undefined && entry.details["diskKey"] !== diskKey) continue;
    await stopNbdExport(host.connection, entry.name);
    await ledger.settle(entry.id);
  }
}

/** Gives the disks their names, defines the VM, starts it if asked. May run again after any crash within. */
export async function finishRestore(
  host: LibvirtHost,
  session: RestoreSession,
  context: DriverContext,
): Promise<RestoredVm> {
  const state = restoreState(session);
  const warnings: string[] = [];
  await stopExports(host, context);
  const isDefined = await ownDomainExists(host, state.uuid, state);
  const givesUp = state.replaces && !isDefined;
  const oldDisks = givesUp ? await giveUpPlace(host, state, context) : [];
  if (!isDefined && !state.replaces) await checkStillFree(host, state);
  for (const disk of state.disks) await putInPlace(host, disk);
  if (state.nvram !== undefined) {
    await moveFile(host, { from: state.nvram.partial, to: state.nvram.final });
  }
  if (!isDefined) {
    await intend(context, "domain", state.uuid, { name: state.name, replaces: state.replaces });
    await host.virsh.run(["define", "--file", state.definition, "--validate"]).catch(async () => {
      // Definitions of newer or patched libvirt may hold elements that the schema does not know.
      await host.virsh.run(["define", "--file", state.definition]);
    });
  }
  const kept = oldDisks.filter((path) => !state.disks.some((disk) => disk.final === path));
  if (kept.length > 0) {
    warnings.push(`the replaced VM's disks were kept: ${kept.join(", ")}`);
  }
  const started = state.start ? await start(host, state, warnings) : false;
  await runOnHost(host.connection, ["rm", "-rf", "--", state.folder]);
  for (const entry of await context.ledger.list()) {
    if (entry.jobId === context.jobId && entry.kind.startsWith("restore-")) {
      await context.ledger.settle(entry.id);
    }
  }
  return { externalId: state.uuid, name: state.name, started, warnings };
}

async function checkStillFree(host: LibvirtHost, state: RestoreState): Promise<void> {
  const byName = await findDomain(host, state.name);
  const byUuid = await findDomain(host, state.uuid);
  if (byName !== undefined || byUuid !== undefined) {
    throw new Failure("target.refused", {
      message: `a VM with the name ${state.name} or its UUID was made meanwhile`,
    });
  }
}

/** The stopped VM keeps its disk files, merged into one each; only its definition will point elsewhere. */
async function giveUpPlace(
  host: LibvirtHost,
  state: RestoreState,
  { ledger, logger }: DriverContext,
): Promise<readonly string[]> {
  const before = await lookAtVm(host, state.uuid);
  if (before.isActive) {
    throw new Failure("target.refused", {
      message: `${state.name} was started meanwhile; shut it down and finish the restore again`,
    });
  }
  const entries = (await ledger.list()).filter(({ kind }) =>
    ["overlay", "checkpoint"].includes(kind),
  );
  await sweep({ host, uuid: state.uuid, ledger, logger }, entries);
  await host.virsh.try(["managedsave-remove", "--domain", state.uuid]);
  return before.disks.flatMap((disk) => {
    if (disk.kind === "rbd") return [disk.rbd.image];
    return disk.kind === "image" ? [disk.root.path] : [];
  });
}

async function putInPlace(host: LibvirtHost, disk: RestoredDisk): Promise<void> {
  if (disk.kind === "file") return moveFile(host, { from: disk.partial, to: disk.final });
  const final = { ...disk.rbd, image: disk.final };
  if (await rbdExists(host.connection, disk.rbd)) {
    if (await rbdExists(host.connection, final)) {
      throw new Failure("target.refused", { message: `${disk.final} was made meanwhile` });
    }
    await renameRbdImage(host.connection, disk.rbd, disk.final);
  }
}

/** Never over an existing file. One that was moved already is fine. */
async function moveFile(
  host: LibvirtHost,
  { from, to }: { readonly from: string; readonly to: string },
): Promise<void> {
  const { connection } = host;
  if ((await statFile(connection, from)) === undefined) {
    if ((await statFile(connection, to)) !== undefined) return;
    throw new Failure("disk.write-failed", { message: `${from} is gone from the host` });
  }
  await runOnHost(connection, ["mv", "-n", "--", from, to]);
  if ((await statFile(connection, from)) !== undefined) {
    throw new Failure("target.refused", { message: `${to} was made meanwhile` });
  }
}

async function start(host: LibvirtHost, state: RestoreState, warnings: string[]): Promise<boolean> {
  const result = await host.virsh.try(["start", "--domain", state.uuid], { timeoutMs: 180_000 });
  if (result.exitCode === 0 || /already active/i.test(result.stderr)) return true;
  warnings.push(`it was restored but does not start: ${virshMessage(result)}`);
  return false;
}

/** Removes what the job made, and nothing that was there before. */
export async function abandonRestore(
  host: LibvirtHost,
  session: RestoreSession | undefined,
  context: DriverContext,
): Promise<void> {
  const { ledger, jobId, logger } = context;
  await stopExports(host, context);
  const entries = (await ledger.list()).filter((entry) => entry.jobId === jobId);
  const domain = entries.find(({ kind }) => kind === "restore-domain");
  const state = session === undefined ? undefined : restoreState(session);
  const isDefined = domain !== undefined && (await ownDomainExists(host, domain.name, state));
  if (domain !== undefined && isDefined) {
    const isRunning = (await lookAtVm(host, domain.name)).isActive;
    if (isRunning || domain.details["replaces"] === true) {
      logger.warn("restored vm stays: it was in place already", { uuid: domain.name });
    } else {
      const flags = ["--keep-nvram", "--checkpoints-metadata", "--snapshots-metadata"];
      await host.virsh.run(["undefine", "--domain", domain.name, ...flags]);
      await removeFinals(host, state);
    }
  } else await removeFinals(host, state);
  for (const entry of entries) {
    if (entry.kind === "restore-file") await removeFile(host.connection, entry.name);
    if (entry.kind === "restore-rbd") {
      const rbd = parseState(RbdReference, entry.details["rbd"], "the ledger entry");
      await removeRbdImage(host.connection, rbd);
    }
    if (entry.kind === "restore-folder") {
      await runOnHost(host.connection, ["rm", "-rf", "--", entry.name]);
    }
    if (entry.kind.startsWith("restore-")) await ledger.settle(entry.id);
  }
}

/** The VM's definition names this restore's disks: it is the one that was defined here. */
async function ownDomainExists(
  host: LibvirtHost,
  uuid: string,
  state: RestoreState | undefined,
): Promise<boolean> {
  if ((await findDomain(host, uuid)) === undefined || state === undefined) return false;
  const { domain } = await lookAtVm(host, uuid);
  return state.disks.some((disk) =>
    domain.disks.some(({ source }) =>
      disk.kind === "rbd"
        ? source.kind === "rbd" && source.image === disk.final
        : "path" in source && source.path === disk.final,
    ),
  );
}

/** Disks that got their names already: only the very files that this job made. */
async function removeFinals(host: LibvirtHost, state: RestoreState | undefined): Promise<void> {
  const { connection } = host;
  const files: { readonly final: string; readonly inode?: string | undefined }[] = [];
  for (const disk of state?.disks ?? []) {
    if (disk.kind === "file") files.push(disk);
    else {
      const final = { ...disk.rbd, image: disk.final };
      if (!(await rbdExists(connection, final))) continue;
      if ((await rbdInfo(connection, final)).identity === disk.identity) {
        await removeRbdImage(connection, final);
      }
    }
  }
  if (state?.nvram !== undefined) files.push(state.nvram);
  for (const { final, inode } of files) {
    const facts = await statFile(connection, final);
    if (facts !== undefined && facts.inode === inode) await removeFile(connection, final);
  }
}

function restoreState(session: RestoreSession): RestoreState {
  return parseState(RestoreState, session.state, "the restore session's state");
}
