/**
 * The driver for a stand-alone libvirt host. It works on the host through one SSH (or local) connection a call:
 * virsh, qemu-img, qemu-nbd and rbd there, the disks' bytes over NBD through the same connection. It holds no state:
 * sessions and anchors are plain JSON, and what is made on the host is in the ledger before it is made.
 */
import type { Driver } from "../../ports/driver.ts";
import { checkHost } from "./check.ts";
import { abandonRestore, finishRestore, openRestoreTarget } from "./finish-restore.ts";
import { listInventory } from "./inventory.ts";
import { type LibvirtDriverOptions, openLibvirtHost } from "./libvirt-host.ts";
import { readMetadata } from "./metadata.ts";
import { openSessionDisk } from "./open-disk.ts";
import { prepareRestore } from "./prepare-restore.ts";
import { releaseJob } from "./release.ts";
import { takeSnapshot } from "./snapshot.ts";
import { watchSession } from "./watch.ts";

export type { LibvirtDriverOptions } from "./libvirt-host.ts";

export function createLibvirtDriver(options: LibvirtDriverOptions): Driver {
  const open = (signal: AbortSignal) => openLibvirtHost(options, signal);
  return {
    check: (call) => checkHost(options, call),
    async *inventory(call) {
      await using host = await open(call.signal);
      yield* listInventory(host, call);
    },
    async snapshot(request, context) {
      await using host = await open(context.signal);
      return await takeSnapshot(host, request, context);
    },
    async metadata(session, context) {
      await using host = await open(context.signal);
      return await readMetadata(host, session, context);
    },
    openDisk: (session, diskKey, context) => openSessionDisk(options, session, diskKey, context),
    async watch(session, context) {
      await using host = await open(context.signal);
      await watchSession(host, session);
    },
    async release(request, context) {
      await using host = await open(context.signal);
      await releaseJob(host, request, context);
    },
    async prepareRestore(request, context) {
      await using host = await open(context.signal);
      return await prepareRestore(host, request, context);
    },
    openTarget: (session, diskKey, context) =>
      openRestoreTarget(options, session, diskKey, context),
    async finishRestore(session, context) {
      await using host = await open(context.signal);
      return await finishRestore(host, session, context);
    },
    async abandonRestore(session, context) {
      await using host = await open(context.signal);
      await abandonRestore(host, session, context);
    },
  };
}
