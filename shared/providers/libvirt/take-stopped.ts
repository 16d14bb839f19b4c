import { Failure } from "../../domain/failure.ts";
import { statFile } from "../../kvm-host/files.ts";
import { createRbdSnapshot } from "../../kvm-host/rbd.ts";
import type { DriverContext, SessionDisk } from "../../ports/driver.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import type { BackupPlan } from "./plan-backup.ts";
import { type DiskState, rbdSnapshotName } from "./state.ts";
import { intendRbdSnapshot, rbdReference, sessionDisk, type Taken } from "./take-overlays.ts";

/**
 * A stopped VM under the strategy checkpoint. libvirt makes neither backup jobs nor checkpoints without QEMU, so
 * the images are read as they lie, without a lock that would keep the VM from starting: when it starts, `watch`
 * ends the session. The last point's bitmap, saved in the image, gives the changes; it stays the anchor.
 */
export async function takeStopped(
  host: LibvirtHost,
  plan: BackupPlan,
  context: DriverContext,
): Promise<Taken> {
  const { jobId } = context;
  const disks: SessionDisk[] = [];
  const states: Record<string, DiskState> = {};
  for (const { facts: disk, fullReason } of plan.disks) {
    if (disk.kind === "rbd") {
      await intendRbdSnapshot(disk, context, false);
      await createRbdSnapshot(host.connection, disk.rbd, rbdSnapshotName(jobId));
      disks.push(sessionDisk(disk.key, disk.sizeBytes, fullReason));
      states[disk.key] = {
        kind: "rbd",
        rbd: rbdReference(disk),
        snapshot: rbdSnapshotName(jobId),
      };
      continue;
    }
    const [active] = disk.chain;
    const file = await statFile(host.connection, active.path);
    if (file === undefined) {
      throw new Failure("vm.snapshot-failed", { message: `${active.path} does not exist` });
    }
    const bitmap = disk.image.bitmaps.find(({ name }) => name === plan.checkpoint);
    const reason =
      fullReason ?? (bitmap?.isBroken === false ? undefined : "its bitmap was not saved by QEMU");
    disks.push(sessionDisk(disk.key, disk.sizeBytes, reason));
    states[disk.key] = {
      kind: "stopped-image",
      layers: [...disk.chain],
      ...(reason === undefined && bitmap !== undefined ? { bitmap: bitmap.name } : {}),
      changed: file.changed,
    };
  }
  return { disks, states, anchorDisks: {}, warnings: [] };
}
