import type { Extent } from "@holdfast/shared/domain/extent";
import { Failure } from "@holdfast/shared/domain/failure";
import type { VmDescription } from "@holdfast/shared/domain/vm";
import type { DiskReader, DiskWriter } from "@holdfast/shared/ports/disk";
import type { Driver, InventoryItem, VmMetadata } from "@holdfast/shared/ports/driver";

/**
 * A hypervisor in memory, for tests of everything above the driver port. VMs write while they are backed up; snapshots
 * freeze bytes; every temporary thing is visible in `things`, so that a test can look for what was left behind.
 * It is a model of the port's contract, not of any product; the real libvirt is tested in test/systems.
 */
export type MemoryDisk = { key: string; bytes: Uint8Array; dirty: Set<number> };
export type MemoryVm = { uuid: string; name: string; disks: MemoryDisk[]; running: boolean };
type Snapshot = { vm: string; disks: Map<string, { bytes: Uint8Array; dirty: Set<number> }> };

const blockBytes = 64 * 1024;

export type MemoryHypervisor = {
  readonly vms: Map<string, MemoryVm>;
  /** Snapshots and half-made restores that exist now. */
  readonly things: Set<string>;
  readonly driver: Driver;
  /** Called at the start of every driver call and every read and write; throws or waits to inject faults. */
  hook: (call: string) => Promise<void> | void;
  addVm(name: string, disks: Record<string, Uint8Array>): MemoryVm;
  write(vm: MemoryVm, diskKey: string, offset: number, data: Uint8Array): void;
  frozen(jobId: string, diskKey: string): Uint8Array;
};

export function createMemoryHypervisor(): MemoryHypervisor {
  const vms = new Map<string, MemoryVm>();
  const things = new Set<string>();
  const snapshots = new Map<string, Snapshot>();
  const partial = new Map<string, Map<string, Uint8Array>>();
  let nextUuid = 1;

  const hypervisor: MemoryHypervisor = {
    vms,
    things,
    hook: () => undefined,
    addVm(name, disks) {
      const uuid = `00000000-0000-4000-8000-${String(nextUuid++).padStart(12, "0")}`;
      const vm: MemoryVm = {
        uuid,
        name,
        running: true,
        disks: Object.entries(disks).map(([key, bytes]) => ({ key, bytes, dirty: new Set() })),
      };
      vms.set(uuid, vm);
      return vm;
    },
    write(vm, diskKey, offset, data) {
      const disk = find(vm, diskKey);
      disk.bytes.set(data, offset);
      const last = Math.floor((offset + data.length - 1) / blockBytes);
      for (let block = Math.floor(offset / blockBytes); block <= last; block++)
        disk.dirty.add(block);
    },
    frozen(jobId, diskKey) {
      const bytes = snapshots.get(jobId)?.disks.get(diskKey)?.bytes;
      if (bytes === undefined) throw new Error(`no snapshot of ${jobId} ${diskKey}`);
      return bytes;
    },
    driver: undefined as never,
  };

  const hook = async (call: string, signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted();
    await hypervisor.hook(call);
    signal.throwIfAborted();
  };
  const vmOf = (uuid: string): MemoryVm => {
    const vm = vms.get(uuid);
    if (vm === undefined) throw new Failure("vm.gone", { message: `VM ${uuid} is gone` });
    return vm;
  };
  const drop = async (
    jobId: string,
    ledger: { settle(id: string): Promise<void> },
  ): Promise<void> => {
    things.delete(`snapshot ${jobId}`);
    await ledger.settle(`${jobId}/snapshot/${jobId}`);
  };

  /** Gives a snapshot up: what changed before it must count as changed again. */
  const discard: typeof drop = async (jobId, ledger) => {
    const snapshot = snapshots.get(jobId);
    for (const disk of snapshot ? vmOf(snapshot.vm).disks : []) {
      for (const block of snapshot?.disks.get(disk.key)?.dirty ?? []) disk.dirty.add(block);
    }
    snapshots.delete(jobId);
    await drop(jobId, ledger);
  };

  const driver: Driver = {
    async check({ signal }) {
      await hook("check", signal);
      return [{ check: "memory", state: "ok", message: "it is here" }];
    },
    async *inventory({ signal }) {
      await hook("inventory", signal);
      for (const vm of vms.values()) yield inventoryItem(vm);
    },
    async snapshot({ externalId, options, previous }, { jobId, ledger, signal }) {
      const vm = vmOf(externalId);
      await ledger.intend({
        id: `${jobId}/snapshot/${jobId}`,
        jobId,
        kind: "snapshot",
        name: jobId,
        details: {},
        kept: false,
      });
      await hook("snapshot", signal);
      const included = vm.disks.filter(({ key }) => !options.excludeDisks.includes(key));
      const disks = new Map(
        included.map((disk) => [disk.key, { bytes: disk.bytes.slice(), dirty: disk.dirty }]),
      );
      const base = previous?.state["jobId"];
      const known =
        typeof base === "string" && things.has(`snapshot ${base}`)
          ? snapshots.get(base)
          : undefined;
      things.add(`snapshot ${jobId}`);
      snapshots.set(jobId, { vm: vm.uuid, disks });
      for (const disk of included) disk.dirty = new Set();
      try {
        await hook("snapshot taken", signal);
      } catch (error) {
        // As the port asks, nothing is left behind by a failure; whose it is, the ledger knows.
        const mine = await ledger.list();
        if (mine.some((entry) => entry.jobId === jobId)) await discard(jobId, ledger);
        throw error;
      }
      return {
        jobId,
        externalId,
        strategy: "checkpoint",
        takenAt: new Date(0).toISOString(),
        consistency: "crash",
        warnings: [],
        disks: included.map(({ key, bytes }) => {
          const incremental = known?.disks.get(key)?.bytes.length === bytes.length;
          return {
            key,
            sizeBytes: bytes.length,
            mode: incremental ? ("incremental" as const) : ("full" as const),
            reason: incremental || previous === undefined ? "" : "the last snapshot is gone",
          };
        }),
        anchor: options.incremental ? { strategy: "checkpoint", state: { jobId } } : undefined,
        state: {},
      };
    },
    async metadata({ externalId }, { signal }) {
      await hook("metadata", signal);
      return metadataOf(vmOf(externalId));
    },
    async openDisk(session, diskKey, { full, signal }) {
      await hook(`open ${diskKey}`, signal);
      const frozen = snapshots.get(session.jobId)?.disks.get(diskKey);
      if (frozen === undefined) throw new Failure("vm.snapshot-failed", { message: "no snapshot" });
      const mode = session.disks.find(({ key }) => key === diskKey)?.mode;
      return memoryReader(
        frozen.bytes,
        full || mode === "full" ? undefined : frozen.dirty,
        (call, s) => hook(`${call} ${diskKey}`, s),
      );
    },
    async watch(_session, { signal }) {
      await hook("watch", signal);
    },
    async release({ session, outcome, previous, endedJobIds }, { jobId, ledger, signal }) {
      await hook("release", signal);
      for (const ended of endedJobIds) await discard(ended, ledger);
      if (outcome === "committed" && session?.anchor !== undefined) {
        await ledger.keep(`${jobId}/snapshot/${jobId}`);
        const old = previous?.state["jobId"];
        if (typeof old === "string") await drop(old, ledger);
      } else {
        await discard(jobId, ledger);
      }
    },
    async prepareRestore({ metadata, disks, target }, { jobId, ledger, signal }) {
      await hook("prepare", signal);
      for (const vm of vms.values()) {
        if (vm.name === target.name) {
          throw new Failure("target.refused", { message: `there is a VM ${target.name} already` });
        }
      }
      await ledger.intend({
        id: `${jobId}/restore/${jobId}`,
        jobId,
        kind: "restore",
        name: jobId,
        details: {},
        kept: false,
      });
      things.add(`restore ${jobId}`);
      // Not zeroed, to prove that holes are written.
      partial.set(
        jobId,
        new Map(disks.map(({ key, sizeBytes }) => [key, new Uint8Array(sizeBytes).fill(0xaa)])),
      );
      return {
        jobId,
        disks,
        warnings: [],
        state: { name: target.name, start: target.start, uuid: metadata.description.uuid },
      };
    },
    async openTarget(session, diskKey, { signal }) {
      await hook(`open target ${diskKey}`, signal);
      const bytes = partial.get(session.jobId)?.get(diskKey);
      if (bytes === undefined) throw new Failure("disk.write-failed", { message: "no target" });
      return memoryWriter(bytes, (call, s) => hook(`${call} ${diskKey}`, s));
    },
    async finishRestore(session, { ledger, jobId, signal }) {
      await hook("finish", signal);
      const name = String(session.state["name"]);
      const existing = [...vms.values()].find((vm) => vm.name === name);
      const vm =
        existing ?? hypervisor.addVm(name, Object.fromEntries(partial.get(session.jobId) ?? []));
      vm.running = session.state["start"] === true;
      things.delete(`restore ${jobId}`);
      await ledger.settle(`${jobId}/restore/${jobId}`);
      return { externalId: vm.uuid, name, started: vm.running, warnings: [] };
    },
    async abandonRestore(_session, { jobId, ledger, signal }) {
      await hook("abandon", signal);
      things.delete(`restore ${jobId}`);
      partial.delete(jobId);
      await ledger.settle(`${jobId}/restore/${jobId}`);
    },
  };
  return Object.assign(hypervisor, { driver });
}

function find(vm: MemoryVm, diskKey: string): MemoryDisk {
  const disk = vm.disks.find(({ key }) => key === diskKey);
  if (disk === undefined) throw new Error(`${vm.name} has no disk ${diskKey}`);
  return disk;
}

function inventoryItem(vm: MemoryVm): InventoryItem {
  return {
    externalId: vm.uuid,
    power: vm.running ? "running" : "stopped",
    description: describe(vm),
    strategy: "checkpoint",
    strategyReason: "the model has no other",
  };
}

function describe(vm: MemoryVm): VmDescription {
  return {
    name: vm.name,
    uuid: vm.uuid,
    memoryBytes: 128 * 1024 * 1024,
    vcpus: 1,
    architecture: "x86_64",
    firmware: "bios",
    disks: vm.disks.map(({ key, bytes }) => ({
      key,
      sizeBytes: bytes.length,
      bus: "virtio",
      format: "raw",
      storage: "file",
      location: `/memory/${vm.name}-${key}`,
      readOnly: false,
      shareable: false,
    })),
    nics: [],
    tags: [],
  };
}

function metadataOf(vm: MemoryVm): VmMetadata {
  return {
    providerKind: "memory",
    description: describe(vm),
    excludedDisks: [],
    documents: { "domain.xml": `<domain><name>${vm.name}</name></domain>` },
  };
}

type Hook = (call: string, signal: AbortSignal) => Promise<void>;
const never = new AbortController().signal;

/** A reader of frozen bytes; with `dirty` it calls all other blocks unchanged. */
export function memoryReader(
  bytes: Uint8Array,
  dirty: ReadonlySet<number> | undefined,
  hook: Hook = () => Promise.resolve(),
): DiskReader {
  return {
    sizeBytes: bytes.length,
    readsMax: 8,
    readBytesMax: 1024 * 1024,
    async *extents() {
      for (let offset = 0; offset < bytes.length; offset += blockBytes) {
        const length = Math.min(blockBytes, bytes.length - offset);
        const isDirty = dirty === undefined || dirty.has(offset / blockBytes);
        const isZero = bytes.subarray(offset, offset + length).every((byte) => byte === 0);
        yield {
          offset,
          length,
          kind: isDirty ? (isZero ? "zero" : "data") : "unchanged",
        } satisfies Extent;
      }
    },
    async read(offset, into, options) {
      await hook("read", options?.signal ?? never);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    async [Symbol.asyncDispose]() {},
  };
}

export function memoryWriter(bytes: Uint8Array, hook: Hook = () => Promise.resolve()): DiskWriter {
  return {
    sizeBytes: bytes.length,
    startsZeroed: false,
    writesMax: 8,
    writeBytesMax: 1024 * 1024,
    async write(offset, data, options) {
      await hook("write", options?.signal ?? never);
      bytes.set(data, offset);
    },
    async zero(offset, length, options) {
      await hook("zero", options?.signal ?? never);
      bytes.fill(0, offset, offset + length);
    },
    async flush() {},
    async [Symbol.asyncDispose]() {},
  };
}
