import { systemClock } from "@holdfast/shared/ports/clock";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import {
  createRepository,
  type NewPoint,
  openRepository,
  type Repository,
} from "@holdfast/shared/repository/repository";
import type { BeginSession, Session } from "@holdfast/shared/repository/session/sessions";
import { createMemoryWriter, type MemoryWriter } from "./memory-disk.ts";
import { restoreDisk } from "./restore-disk.ts";
import { type TransferOptions, type TransferResult, transferDisk } from "./transfer-disk.ts";

/** For tests: a repository with small chunks, packs and leaves, so that small disks have many of each. */
export const smallSettings = {
  packBytes: 256 * 1024,
  chunkBytesMin: 8 * 1024,
  chunkBytesTarget: 16 * 1024,
  chunkBytesMax: 64 * 1024,
  leafBytes: 256 * 1024,
};

export const passphrase = "correct horse";

export function createTestRepository(store: ObjectStore): Promise<Repository> {
  return createRepository({
    store,
    passphrase,
    clock: systemClock,
    random: systemRandom,
    settings: smallSettings,
    passphraseCost: { memoryKiB: 64, passes: 1 },
  });
}

export function openTestRepository(store: ObjectStore, word = passphrase): Promise<Repository> {
  return openRepository({ store, passphrase: word, clock: systemClock, random: systemRandom });
}

export function beginSession(
  repository: Repository,
  more: Partial<BeginSession> = {},
): Promise<Session> {
  const silenceSeconds = 60;
  return repository.sessions.begin({
    kind: "backup",
    holder: "test",
    pins: [],
    silenceSeconds,
    ...more,
  });
}

/** In a session of its own, if none is given. */
export async function writePoint(
  repository: Repository,
  point: NewPoint,
  session?: Session,
): Promise<{ readonly rootKey: string }> {
  return repository.writePoint(session ?? (await beginSession(repository)), point);
}

/** In a session of its own, if none is given. */
export async function transfer(
  repository: Repository,
  reader: DiskReader,
  options: Partial<TransferOptions> = {},
): Promise<TransferResult> {
  return transferDisk({
    repository,
    session: options.session ?? (await beginSession(repository)),
    reader,
    diskKey: "vda",
    sampleShare: 0,
    saveCheckpoint: async () => undefined,
    onProgress: () => undefined,
    signal: new AbortController().signal,
    workers: 0,
    logger: silentLogger,
    ...options,
  });
}

export async function restore(
  repository: Repository,
  recordKey: string,
  target: { readonly sizeBytes: number; readonly fill?: number; readonly workers?: number },
): Promise<MemoryWriter> {
  const writer = createMemoryWriter(target.sizeBytes, target.fill ?? 0xaa);
  await restoreDisk({
    repository,
    recordKey,
    writer,
    onProgress: () => undefined,
    signal: new AbortController().signal,
    workers: target.workers ?? 0,
    logger: silentLogger,
  });
  return writer;
}

export function newPoint(recordKey: string, more: Partial<NewPoint> = {}): NewPoint {
  return {
    pointId: "point-1",
    vmKey: "vm-1",
    vmName: "web",
    providerId: "host-1",
    jobId: "job-1",
    fence: 1,
    takenAt: "2026-11-20T12:00:00Z",
    mode: "full",
    consistency: "crash",
    warnings: [],
    metadata: {
      providerKind: "libvirt",
      description: {
        name: "web",
        uuid: "00000000-0000-0000-0000-000000000001",
        memoryBytes: 1,
        vcpus: 1,
        architecture: "x86_64",
        firmware: "bios",
        disks: [],
        nics: [],
        tags: [],
      },
      excludedDisks: [],
      documents: { "domain.xml": "<domain/>" },
    },
    disks: [{ key: "vda", recordKey, mode: "full", reason: "" }],
    ...more,
  };
}
