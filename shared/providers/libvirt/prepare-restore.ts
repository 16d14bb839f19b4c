import { Failure } from "../../domain/failure.ts";
import {
  fileNameOf,
  folderOf,
  freeBytes,
  makeFolder,
  removeFile,
  runOnHost,
  statFile,
  writeFile,
} from "../../kvm-host/files.ts";
import { createRbdImage, rbdExists, rbdInfo, removeRbdImage } from "../../kvm-host/rbd.ts";
import type { DriverContext, RestoreRequest, RestoreSession } from "../../ports/driver.ts";
import { jobFolder, type LibvirtHost } from "./libvirt-host.ts";
import { removableFiles, rewriteDefinition } from "./restore-domain-xml.ts";
import {
  diskNames,
  fileSafe,
  placeOf,
  type RestoredDisk,
  type RestoreState,
  rbdAccess,
  uuidOf,
  type WantedDisk,
  wantedDisks,
} from "./restore-plan.ts";
import { lookAtVm } from "./vm-facts.ts";

/** Checks that the target can take the restore, then makes the empty disks under temporary names. */
export async function prepareRestore(
  host: LibvirtHost,
  request: RestoreRequest,
  context: DriverContext,
): Promise<RestoreSession> {
  const { metadata, target } = request;
  const xml = metadata.documents["domain.xml"];
  if (metadata.providerKind !== "libvirt" || xml === undefined) {
    throw new Failure("unsupported", {
      message: `a point of ${metadata.providerKind} cannot be restored to libvirt yet`,
    });
  }
  const identity = await checkTarget(host, request, context.jobId);
  const wanted = wantedDisks(request);
  await checkPlaces(host, request, wanted);
  const folder = jobFolder(host, context.jobId);
  await intend(context, "folder", folder, {});
  await makeFolder(host.connection, folder);
  const disks: RestoredDisk[] = [];
  for (const disk of wanted) disks.push(await makeDisk(host, request, disk, xml, context));
  const nvram = await makeNvram(host, request, context);
  const definition = `${folder}/definition.xml`;
  const present = new Set<string>();
  for (const file of removableFiles(xml)) {
    if ((await statFile(host.connection, file)) !== undefined) present.add(file);
  }
  await writeFile(
    host.connection,
    definition,
    rewriteDefinition(xml, {
      name: target.name,
      uuid: identity.uuid,
      keepIdentity: identity.keepsAddresses,
      jobId: context.jobId,
      disks,
      nvram: nvram?.final,
      presentFiles: present,
    }),
  );
  const state: RestoreState = {
    name: target.name,
    uuid: identity.uuid,
    replaces: identity.replaces,
    start: target.start,
    folder,
    definition,
    disks,
    ...(nvram === undefined ? {} : { nvram }),
  };
  return {
    jobId: context.jobId,
    disks: request.disks.map(({ key, sizeBytes }) => ({ key, sizeBytes })),
    warnings: [...identity.warnings],
    state,
  };
}

type Identity = {
  readonly uuid: string;
  readonly replaces: boolean;
  readonly keepsAddresses: boolean;
  readonly warnings: readonly string[];
};

/** Fails with `target.refused`. A VM that replaces another keeps that one's UUID: libvirt ties name and UUID together. */
async function checkTarget(
  host: LibvirtHost,
  { metadata, target }: RestoreRequest,
  jobId: string,
): Promise<Identity> {
  const refuse = (message: string) => new Failure("target.refused", { message });
  const { uuid: original } = metadata.description;
  const existing = await findDomain(host, target.name);
  if (target.mode === "new") {
    if (existing !== undefined) {
      throw refuse(`the host already has a VM named ${target.name}`);
    }
    const taken = target.keepIdentity ? await findDomain(host, original) : undefined;
    if (taken !== undefined) {
      throw refuse(`the UUID ${original} belongs to an existing VM; restore without its identity`);
    }
    const uuid = target.keepIdentity ? original : uuidOf(jobId);
    return { uuid, replaces: false, keepsAddresses: target.keepIdentity, warnings: [] };
  }
  if (existing === undefined) {
    const taken = await findDomain(host, original);
    const uuid = taken === undefined ? original : uuidOf(jobId);
    const keepsAddresses = target.keepIdentity && taken === undefined;
    const warnings = [`there is no VM named ${target.name} to replace; it is made anew`];
    return { uuid, replaces: false, keepsAddresses, warnings };
  }
  const facts = await lookAtVm(host, existing);
  if (facts.isActive) throw refuse(`${target.name} is running; shut it down first`);
  if (!facts.isPersistent) throw refuse(`${target.name} has no definition that could be replaced`);
  if (facts.hasSnapshots) throw refuse(`${target.name} has snapshots; remove them first`);
  if (target.keepIdentity && existing !== original) {
    throw refuse(`${target.name} is another VM than the point's; restore without its identity`);
  }
  const keepsAddresses = existing === original;
  return { uuid: existing, replaces: true, keepsAddresses, warnings: [] };
}

/** The UUID of a domain, by its exact name or UUID. (virsh itself would take a name of digits for an id.) */
export async function findDomain(
  host: LibvirtHost,
  nameOrUuid: string,
): Promise<string | undefined> {
  const list = await host.virsh.run(["list", "--all", "--uuid", "--name"]);
  for (const line of list.split("\n")) {
    const [, uuid, name] = /^\s*([0-9a-f-]{36})\s+(.*?)\s*$/.exec(line) ?? [];
    if (uuid !== undefined && (uuid === nameOrUuid || name === nameOrUuid)) return uuid;
  }
  return undefined;
}

/**
 * All of the disks' virtual sizes must fit: a host whose storage fills up pauses every VM on it.
 */
async function checkPlaces(
  host: LibvirtHost,
  request: RestoreRequest,
  wanted: readonly WantedDisk[],
): Promise<void> {
  const bytesByFolder = new Map<string, number>();
  for (const disk of wanted) {
    const place = placeOf(disk, request);
    if (place.kind !== "file") continue;
    bytesByFolder.set(place.location, (bytesByFolder.get(place.location) ?? 0) + disk.sizeBytes);
  }
  for (const [folder, bytes] of bytesByFolder) {
    const exists = await host.connection.run(["test", "-d", folder]);
    if (exists.exitCode !== 0) {
      throw new Failure("target.refused", {
        message: `the host has no folder ${folder}; name another location`,
      });
    }
    const free = await freeBytes(host.connection, folder);
    if (free < bytes) {
      throw new Failure("host.no-space", {
        message: `${folder} has ${free} bytes free, the disks need up to ${bytes}`,
      });
    }
  }
}

async function makeDisk(
  host: LibvirtHost,
  request: RestoreRequest,
  wanted: WantedDisk,
  xml: string,
  context: DriverContext,
): Promise<RestoredDisk> {
  const { connection } = host;
  const { key } = wanted.disk;
  const { sizeBytes } = wanted;
  const place = placeOf(wanted, request);
  const { partial, final, fallback } = diskNames(request, key, place, context.jobId);
  if (place.kind === "rbd") {
    const access = rbdAccess(xml);
    const rbd = { ...access, image: partial };
    await intend(context, "rbd", partial, { rbd });
    // Its name carries the job's id: what is there is of an earlier attempt.
    await removeRbdImage(connection, rbd);
    await createRbdImage(connection, rbd, sizeBytes);
    const isTaken = await rbdExists(connection, { ...access, image: final });
    const { identity } = await rbdInfo(connection, rbd);
    const place = { partial, final: isTaken ? fallback : final };
    return { kind: "rbd", key, sizeBytes, rbd, identity, ...place };
  }
  await intend(context, "file", partial, {});
  await removeFile(connection, partial);
  await runOnHost(connection, [
    "qemu-img",
    "create",
    "-q",
    "-f",
    place.format,
    partial,
    String(sizeBytes),
  ]);
  await runOnHost(connection, ["chmod", "0600", "--", partial]);
  const made = await statFile(connection, partial);
  const isTaken = (await statFile(connection, final)) !== undefined;
  return {
    kind: "file",
    key,
    sizeBytes,
    format: place.format,
    partial,
    final: isTaken ? fallback : final,
    ...(made === undefined ? {} : { inode: made.inode }),
  };
}

/** The UEFI variables of the point, beside where the original's lay. */
async function makeNvram(
  host: LibvirtHost,
  { metadata, target }: RestoreRequest,
  context: DriverContext,
): Promise<RestoreState["nvram"]> {
  const content = metadata.documents["nvram.base64"];
  const xml = metadata.documents["domain.xml"] ?? "";
  const original = /<nvram[^>]*>([^<]+)<\/nvram>/.exec(xml)?.[1]?.trim();
  if (content === undefined || original === undefined) return undefined;
  const beside = folderOf(original);
  const exists = await host.connection.run(["test", "-d", beside]);
  const folder = exists.exitCode === 0 ? beside : "/var/lib/libvirt/qemu/nvram";
  await runOnHost(host.connection, ["mkdir", "-p", "--", folder]);
  const ending = /\.[A-Za-z0-9]{1,8}$/.exec(fileNameOf(original))?.[0] ?? ".fd";
  const stem = `${folder}/${fileSafe(target.name)}_VARS`;
  const partial = `${stem}.holdfast-${context.jobId}.partial${ending}`;
  const isTaken = (await statFile(host.connection, `${stem}${ending}`)) !== undefined;
  const final = isTaken ? `${stem}-${context.jobId}${ending}` : `${stem}${ending}`;
  await intend(context, "file", partial, {});
  await writeFile(host.connection, partial, Buffer.from(content, "base64"));
  await runOnHost(host.connection, ["chmod", "0600", "--", partial]);
  const made = await statFile(host.connection, partial);
  return { partial, final, ...(made === undefined ? {} : { inode: made.inode }) };
}

export function intend(
  { jobId, ledger }: DriverContext,
  kind: "folder" | "file" | "rbd" | "nbd" | "domain",
  name: string,
  details: Readonly<Record<string, unknown>>,
): Promise<void> {
  return ledger.intend({
    id: `${jobId}/restore-${kind}/${name}`,
    jobId,
    kind: `restore-${kind}`,
    name,
    details,
    kept: false,
  });
}
