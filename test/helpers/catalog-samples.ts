import type {
  BackupJob,
  Policy,
  Provider,
  RecoveryPoint,
  Repository,
  RestoreJob,
} from "@holdfast/shared/contracts/catalog-items";
import { BackupOptions, Retention } from "@holdfast/shared/domain/policy";
import type { InventoryItem } from "@holdfast/shared/ports/driver";

/** Valid items for tests; every field can be overridden. */
const time = "2026-11-20T10:00:00.000Z";

export const aProvider = (change: Partial<Provider> = {}): Provider => ({
  providerId: "kvm-1",
  siteId: "local",
  settings: {
    kind: "libvirt",
    uri: "qemu:///system",
    ssh: {
      host: "kvm-1.example",
      port: 22,
      user: "root",
      hostKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"],
      login: "key",
    },
  },
  secretParameter: "/holdfast/test/providers/kvm-1/abc",
  createdAt: time,
  ...change,
});

export const aRepository = (change: Partial<Repository> = {}): Repository => ({
  repositoryId: "main",
  url: "s3://backups/main",
  passphraseParameter: "/holdfast/test/repositories/main/abc",
  createdAt: time,
  ...change,
});

export const anInventoryItem = (
  name = "web",
  externalId = `uuid-${name}`,
  tags: readonly string[] = [],
): InventoryItem => ({
  externalId,
  power: "running",
  strategy: "checkpoint",
  strategyReason: "all disks are qcow2",
  description: {
    name,
    uuid: externalId,
    memoryBytes: 1024 ** 3,
    vcpus: 2,
    architecture: "x86_64",
    firmware: "uefi",
    disks: [
      {
        key: "vda",
        sizeBytes: 8 * 1024 ** 3,
        bus: "virtio",
        format: "qcow2",
        storage: "file",
        location: `/var/lib/libvirt/images/${name}.qcow2`,
        readOnly: false,
        shareable: false,
      },
    ],
    nics: [{ mac: "52:54:00:00:00:01", network: "default", model: "virtio" }],
    tags,
  },
});

export const aPolicy = (change: Partial<Policy> = {}): Policy => ({
  policyId: "nightly",
  repositoryId: "main",
  selection: { namePattern: "*" },
  timeZone: "UTC",
  options: BackupOptions.parse({}),
  retention: Retention.parse({}),
  createdAt: time,
  ...change,
});

export const aBackupJob = (change: Partial<BackupJob> = {}): BackupJob => ({
  kind: "backup",
  jobId: "job-1",
  state: "queued",
  providerId: "kvm-1",
  siteId: "local",
  createdAt: time,
  warnings: [],
  vmId: "vm-1",
  vmName: "web",
  repositoryId: "main",
  full: false,
  options: BackupOptions.parse({}),
  ...change,
});

export const aRestoreJob = (change: Partial<RestoreJob> = {}): RestoreJob => ({
  kind: "restore",
  jobId: "restore-1",
  state: "queued",
  providerId: "kvm-1",
  siteId: "local",
  createdAt: time,
  warnings: [],
  repositoryId: "main",
  vmName: "web",
  restore: {
    pointId: "point-1",
    mode: "new",
    keepIdentity: false,
    start: false,
    storage: "original",
    format: "original",
    excludedDisks: "empty",
  },
  ...change,
});

export const aPoint = (change: Partial<RecoveryPoint> = {}): RecoveryPoint => ({
  pointId: "point-1",
  vmId: "vm-1",
  vmName: "web",
  providerId: "kvm-1",
  repositoryId: "main",
  rootKey: "points/point-1",
  jobId: "job-1",
  takenAt: time,
  committedAt: time,
  mode: "full",
  consistency: "application",
  warnings: [],
  disks: [
    {
      key: "vda",
      sizeBytes: 8 * 1024 ** 3,
      mode: "full",
      reason: "",
      bytesRead: 100,
      bytesNew: 100,
      bytesStored: 50,
    },
  ],
  ...change,
});
