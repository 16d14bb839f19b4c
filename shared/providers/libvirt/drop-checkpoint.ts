import { Failure } from "../../domain/failure.ts";
import { checkpointXml } from "../../kvm-host/domain-xml.ts";
import { removeFile, runOnHost, statFile, writeFile } from "../../kvm-host/files.ts";
import { imageFacts } from "../../kvm-host/image.ts";
import { virshFailure, virshMessage } from "../../kvm-host/virsh.ts";
import type { Logger } from "../../ports/logger.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import type { CheckpointDetails } from "./state.ts";

/**
 * Removes a checkpoint of ours and its bitmaps. A disk that meanwhile belongs to another VM keeps its bitmap:
 * an image that this VM does not have is never touched.
 */
export async function dropCheckpoint(
  { host, uuid, logger }: { host: LibvirtHost; uuid: string; logger: Logger },
  name: string,
  details: CheckpointDetails,
): Promise<"removed" | "left"> {
  const { virsh, connection } = host;
  const state = await virsh.try(["domstate", "--domain", uuid]);
  if (state.exitCode !== 0 && !/failed to get domain/i.test(state.stderr)) {
    throw virshFailure(["domstate"], state);
  }
  const exists = state.exitCode === 0;
  const isRunning = exists && !/shut off|crashed/.test(state.stdout);
  const hadRecord = exists && (await deleteRecord(host, uuid, name, isRunning));
  const domain = exists ? await virsh.domain(uuid, isRunning ? "live" : "inactive") : undefined;
  let result: "removed" | "left" = "removed";
  for (const [target, image] of Object.entries(details.images)) {
    const facts = await statFile(connection, image.path);
    if (facts === undefined || facts.inode !== image.inode) continue;
    const own = domain?.disks.find(
      (disk) => "path" in disk.source && disk.source.path === image.path,
    );
    if (isRunning && own !== undefined) {
      // A running VM's bitmaps go with the record.
      if (!hadRecord) await dropRunningBitmap(host, uuid, name, domain?.disks ?? [], own.target);
      continue;
    }
    const { bitmaps } = await imageFacts(connection, { path: image.path, format: "qcow2" });
    if (!bitmaps.some((bitmap) => bitmap.name === name)) continue;
    if (own === undefined) {
      logger.error("checkpoint's bitmap left for an operator", {
        target,
        bitmap: name,
        path: image.path,
        reason: "the image is no longer a disk of this VM",
      });
      result = "left";
      continue;
    }
    await runOnHost(connection, [
      "qemu-img",
      "bitmap",
      "-f",
      "qcow2",
      "--remove",
      image.path,
      name,
    ]);
  }
  return result;
}

/** True when libvirt deleted the checkpoint as a whole; false when it had none, or only a record could be deleted. */
async function deleteRecord(
  host: LibvirtHost,
  uuid: string,
  name: string,
  isRunning: boolean,
): Promise<boolean> {
  const mode = isRunning ? [] : ["--metadata"];
  const command = ["checkpoint-delete", "--domain", uuid, "--checkpointname", name] as const;
  const deleted = await host.virsh.try([...command, ...mode], { timeoutMs: 300_000 });
  if (deleted.exitCode === 0) return isRunning;
  if (isUnknown(deleted.stderr)) return false;
  if (!isRunning) throw virshFailure(command, deleted);
  // A bitmap that QEMU found broken or that is gone keeps libvirt from deleting the record.
  if (!/bitmap/i.test(deleted.stderr)) throw virshFailure(command, deleted);
  const forced = await host.virsh.try([...command, "--metadata"]);
  if (forced.exitCode !== 0 && !isUnknown(forced.stderr)) {
    throw new Failure("host.command-failed", {
      message: `checkpoint ${name}: ${virshMessage(deleted)}; ${virshMessage(forced)}`,
    });
  }
  return false;
}

/**
 * Without libvirt's record nobody may write the image but QEMU, which forgets a bitmap only when a checkpoint goes:
 * so the record is made again, of this one disk, and deleted with its bitmap.
 */
async function dropRunningBitmap(
  host: LibvirtHost,
  uuid: string,
  name: string,
  disks: readonly { readonly target: string }[],
  own: string,
): Promise<void> {
  const file = `${host.scratchFolder}/${uuid}-${name}.checkpoint.xml`;
  const wanted = disks.map(({ target }) => ({ target, tracked: target === own }));
  const xml = checkpointXml(name, wanted).replace(
    "</name>",
    "</name><creationTime>1</creationTime>",
  );
  await runOnHost(host.connection, ["mkdir", "-p", "-m", "0711", "--", host.scratchFolder]);
  await writeFile(host.connection, file, xml);
  try {
    await host.virsh.run(["checkpoint-create", "--domain", uuid, "--xmlfile", file, "--redefine"]);
  } finally {
    await removeFile(host.connection, file);
  }
  await deleteRecord(host, uuid, name, true);
}

function isUnknown(stderr: string): boolean {
  return /no domain checkpoint with matching name|Domain checkpoint not found/i.test(stderr);
}
