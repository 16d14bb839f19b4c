import { Failure } from "../../domain/failure.ts";
import { parseBackupSocket } from "../../kvm-host/domain-xml.ts";
import { freeBytes } from "../../kvm-host/files.ts";
import type { BackupSession } from "../../ports/driver.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { checkUnchanged } from "./open-disk.ts";
import { sessionState } from "./state.ts";

/** Fails when the session can no longer deliver right data, or when the guest would soon feel it. */
export async function watchSession(host: LibvirtHost, session: BackupSession): Promise<void> {
  const state = sessionState(session);
  const vmState = await host.virsh.state(session.externalId);
  for (const folder of state.spaceFolders) {
    const free = await freeBytes(host.connection, folder);
    if (free < state.scratchBytesMin / 2) {
      throw new Failure("host.no-space", {
        message: `${folder} has only ${free} bytes left; the backup stops before the guest would feel it`,
      });
    }
  }
  if (state.socket !== undefined) await checkJob(host, session.externalId, state.socket, vmState);
  for (const disk of Object.values(state.disks)) {
    if (disk.kind === "stopped-image") await checkUnchanged(host, disk.layers, disk.changed);
  }
}

async function checkJob(
  host: LibvirtHost,
  uuid: string,
  socket: string,
  vmState: string,
): Promise<void> {
  const job = await host.virsh.try(["backup-dumpxml", "--domain", uuid]);
  if (job.exitCode === 0 && parseBackupSocket(job.stdout) === socket) return;
  if (/failed to connect/i.test(job.stderr)) {
    // QEMU serves the export by itself; libvirtd may come back.
    return;
  }
  throw new Failure("vm.snapshot-failed", {
    message: `libvirt's backup job has ended before the disks were read (the VM is ${vmState})`,
  });
}
