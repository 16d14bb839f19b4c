import { Failure } from "../../domain/failure.ts";
import { statFile } from "../../kvm-host/files.ts";
import { chainName, type ImageChain } from "../../kvm-host/image.ts";
import { type NbdExport, startNbdExport, stopNbdExport } from "../../kvm-host/nbd-export.ts";
import { rbdDiff, rbdName } from "../../kvm-host/rbd.ts";
import type { DiskReader } from "../../ports/disk.ts";
import type { BackupSession, DriverContext } from "../../ports/driver.ts";
import type { NbdReadOptions } from "../../ports/transport.ts";
import {
  jobFolder,
  type LibvirtDriverOptions,
  type LibvirtHost,
  openLibvirtHost,
} from "./libvirt-host.ts";
import { type DiskState, type Layer, sessionState } from "./state.ts";

/** The reader owns its connection to the host and its export; closing it gives both back. */
export async function openSessionDisk(
  options: LibvirtDriverOptions,
  session: BackupSession,
  diskKey: string,
  context: DriverContext & { readonly full: boolean },
): Promise<DiskReader> {
  const state = sessionState(session);
  const disk = state.disks[diskKey];
  const expected = session.disks.find(({ key }) => key === diskKey);
  if (disk === undefined || expected === undefined) {
    throw new Failure("not-found", { message: `the session has no disk ${diskKey}` });
  }
  const host = await openLibvirtHost(options, context.signal);
  const open = new AsyncDisposableStack();
  open.use(host);
  try {
    const reader = await openReader({ host, open, context, state, diskKey, disk });
    open.use(reader);
    if (reader.sizeBytes !== expected.sizeBytes) {
      throw new Failure("disk.read-failed", {
        message: `disk ${diskKey} is exported with ${reader.sizeBytes} bytes instead of ${expected.sizeBytes}`,
      });
    }
    return wrapReader(reader, open);
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}

type Opening = {
  readonly host: LibvirtHost;
  readonly open: AsyncDisposableStack;
  readonly context: DriverContext & { readonly full: boolean };
  readonly state: ReturnType<typeof sessionState>;
  readonly diskKey: string;
  readonly disk: DiskState;
};

async function openReader(opening: Opening): Promise<DiskReader> {
  const { host, context, disk, diskKey, state } = opening;
  const allocation = { by: "allocation" } as const;
  switch (disk.kind) {
    case "job-export": {
      const { socket } = state;
      if (socket === undefined)
        throw new Failure("internal", { message: "a session without socket" });
      const isIncremental = disk.incremental && !context.full;
      const extents = isIncremental
        ? ({ by: "dirty-bitmap", name: `backup-${diskKey}` } as const)
        : allocation;
      return readNbd(opening, socket, extents);
    }
    case "overlay": {
      const image = chainName(toChain(disk.layers), { shared: false });
      const socket = await exportImage(opening, { image });
      return readNbd(opening, socket, disk.changes && !context.full ? { by: "depth" } : allocation);
    }
    case "rbd": {
      const from = context.full ? undefined : disk.from;
      const list = await rbdDiff(host.connection, disk.rbd, { snapshot: disk.snapshot, from });
      const image = rbdName(disk.rbd, disk.snapshot);
      const socket = await exportImage(opening, { image, format: "raw" });
      const otherwise = from === undefined ? "zero" : "unchanged";
      return readNbd(opening, socket, { by: "list", list, otherwise });
    }
    case "stopped-image": {
      await checkUnchanged(host, disk.layers, disk.changed);
      const bitmap = context.full ? undefined : disk.bitmap;
      const image = chainName(toChain(disk.layers), { shared: true });
      const socket = await exportImage(opening, {
        image,
        ...(bitmap === undefined ? {} : { bitmap }),
      });
      return readNbd(
        opening,
        socket,
        bitmap === undefined ? allocation : { by: "dirty-bitmap", name: bitmap },
      );
    }
    default:
      return disk satisfies never;
  }
}

/** Fails with `busy` when a stopped VM's image has changed since the session began. */
export async function checkUnchanged(
  host: LibvirtHost,
  layers: readonly Layer[],
  changed: string,
): Promise<void> {
  const [active] = layers;
  const file = active === undefined ? undefined : await statFile(host.connection, active.path);
  if (file?.changed !== changed) {
    throw new Failure("busy", {
      message: `${active?.path} changed while it was read: the VM was started. Run the backup again.`,
    });
  }
}

function toChain(layers: readonly Layer[]): ImageChain {
  const [active, ...below] = layers;
  if (active === undefined) throw new Failure("internal", { message: "an empty chain" });
  return [active, ...below];
}

async function exportImage(
  { host, open, context, diskKey }: Opening,
  what: Pick<NbdExport, "image" | "format" | "bitmap">,
): Promise<string> {
  const { jobId, ledger } = context;
  // A second mover may open the same disk while the first one's export still dies: never the same path twice.
  const unique = `${diskKey}-${host.clock.now().toString(36)}${Math.trunc(performance.now())}`;
  const socket = `${jobFolder(host, jobId)}/${unique}`;
  const entryId = `${jobId}/nbd-export/${unique}`;
  await ledger.intend({
    id: entryId,
    jobId,
    kind: "nbd-export",
    name: socket,
    details: {},
    kept: false,
  });
  open.defer(async () => {
    await stopNbdExport(host.connection, socket);
    await ledger.settle(entryId);
  });
  await startNbdExport(host.connection, { ...what, socket, exportName: diskKey, access: "read" });
  return socket;
}

function readNbd(
  { host, context, diskKey }: Opening,
  socket: string,
  extents: NbdReadOptions["extents"],
): Promise<DiskReader> {
  return host.transports.openNbd(
    { kind: "unix", path: socket, via: host.connection },
    { exportName: diskKey, extents, signal: context.signal },
  );
}

function wrapReader(reader: DiskReader, open: AsyncDisposableStack): DiskReader {
  return {
    sizeBytes: reader.sizeBytes,
    readsMax: reader.readsMax,
    readBytesMax: reader.readBytesMax,
    extents: (options) => reader.extents(options),
    read: (offset, into, options) => reader.read(offset, into, options),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}
