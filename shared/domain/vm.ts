/**
 * What a VM is, independent of its hypervisor: the normalised part of a recovery point's metadata,
 * from which it can be built again on another cloud.
 */
export type Firmware = "bios" | "uefi";

export type VmDisk = {
  /** Stable key within the VM: the target device for libvirt (`vda`). */
  readonly key: string;
  /** Virtual size in bytes. */
  readonly sizeBytes: number;
  readonly bus: string;
  readonly format: "raw" | "qcow2";
  readonly storage: "file" | "block" | "rbd";
  /** Where the provider keeps it: a path, or `pool/image`. */
  readonly location: string;
  readonly serial?: string;
  readonly readOnly: boolean;
  readonly shareable: boolean;
};

export type VmNic = { readonly mac: string; readonly network: string; readonly model: string };

export type VmDescription = {
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly architecture: string;
  readonly firmware: Firmware;
  readonly disks: readonly VmDisk[];
  readonly nics: readonly VmNic[];
  readonly tags: readonly string[];
};

export type PowerState = "running" | "paused" | "stopped" | "unknown";
