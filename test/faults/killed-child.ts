/**
 * The process that test/faults/killed.test.ts kills: works on the repository in a folder until it is killed, and says on stdout what it has
 * done, as JSON lines. Arguments: folder of the repository, folder for its checkpoint, seed.
 */
import { createCipheriv, createHash } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isFailure } from "@holdfast/shared/domain/failure";
import { type Clock, systemClock } from "@holdfast/shared/ports/clock";
import type { DiskReader, DiskWriter } from "@holdfast/shared/ports/disk";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { collect } from "@holdfast/shared/repository/maintenance/collect";
import { openRepository, type Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { createDirectoryObjectStore } from "@holdfast/shared/storage/directory/directory-object-store";
import { createChunkIndexLoader } from "../../mover/pipeline/chunk-index-loader.ts";
import { restoreDisk } from "../../mover/pipeline/restore-disk.ts";
import { transferDisk } from "../../mover/pipeline/transfer-disk.ts";

export const passphrase = "correct horse";
/** A second is a quarter of an hour to all that work here: after that much silence collectors are taken for dead. */
const haste = 900;
export const clock: Clock = {
  now: () => hasteBeginMs + (Date.now() - hasteBeginMs) * haste,
  sleep: (delayMs, signal) => systemClock.sleep(delayMs / haste, signal),
};
const hasteBeginMs = Date.UTC(2026, 0, 1);
const silenceSeconds = 900;
export const diskBytes = 12 * 2 ** 20;
const pieceBytes = 2 ** 20;

export type Told =
  | { readonly kind: "ready" }
  | { readonly kind: "read"; readonly pointId: string; readonly bytes: number }
  | { readonly kind: "committed"; readonly pointId: string; readonly vm: string }
  | { readonly kind: "resumed"; readonly pointId: string }
  | { readonly kind: "forgetting"; readonly pointId: string }
  | { readonly kind: "collected" | "restored" };

/** Without times of day, which would tell that our clock runs too fast. */
export function storeAt(folder: string): ObjectStore {
  const store = createDirectoryObjectStore(folder, { hardLinks: true });
  return {
    ...store,
    head: async (key, options) => {
      const head = await store.head(key, options);
      return head === undefined ? undefined : { key: head.key, sizeBytes: head.sizeBytes };
    },
  };
}

/** A VM's disk at a version: most pieces stay from version to version, some are new, some are zero. */
export function diskOf(vm: string, version: number): Uint8Array {
  const disk = new Uint8Array(diskBytes);
  for (let piece = 0; piece < diskBytes / pieceBytes; piece += 1) {
    if (piece % 5 === 4) continue;
    const changes = piece % 4 === 0 ? version : Math.floor(version / 5);
    const key = createHash("sha256").update(`${vm} ${piece} ${changes}`).digest();
    const cipher = createCipheriv("aes-256-ctr", key, Buffer.alloc(16));
    const half = cipher.update(Buffer.alloc(pieceBytes / 2));
    disk.set(half, piece * pieceBytes);
    disk.fill(65 + (changes % 20), piece * pieceBytes + pieceBytes / 2, (piece + 1) * pieceBytes);
  }
  return disk;
}

if (process.argv[1] === import.meta.filename) await work();

async function work(): Promise<void> {
  const [folder = "", state = "", seed = "0"] = process.argv.slice(2);
  const store = storeAt(folder);
  const repository = await openRepository({ store, passphrase, clock, random });
  tell({ kind: "ready" });
  let dice = Number(seed);
  for (;;) {
    dice = (Math.imul(dice, 1_664_525) + 1_013_904_223) >>> 0;
    const choice = (dice >>> 16) % 10;
    if (choice < 6) await backUp(repository, join(state, "checkpoint.json"));
    else if (choice < 9) await forgetAndCollect(repository);
    else await restoreOne(repository);
  }
}

function tell(told: Told): void {
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

async function transferOnce(
  repository: Repository,
  session: Session,
  { pointId, vm, version, previous, checkpoint }: Job,
  save: (more: Partial<Job>) => void,
): Promise<string> {
  const signal = new AbortController().signal;
  const index = await createChunkIndexLoader(repository, { logger }).load(session, signal);
  const { recordKey } = await transferDisk({
    repository,
    session,
    reader: readerOf(diskOf(vm, version), (bytes) => tell({ kind: "read", pointId, bytes })),
    diskKey: "vda",
    mode: "full",
    ...(previous !== undefined && { previous }),
    ...(checkpoint !== undefined && { checkpoint }),
    ...index,
    sampleShare: 0,
    saveCheckpoint: async (now) => save({ checkpoint: now }),
    onProgress: () => undefined,
    signal,
    workers: 0,
    checkpointBytes: 2 ** 20,
    logger,
  });
  return recordKey;
}

type Job = {
  readonly vm: string;
  readonly version: number;
  readonly pointId: string;
  readonly sessionId?: string;
  readonly previous?: string | undefined;
  readonly checkpoint?: unknown;
  readonly recordKey?: string;
};

/** Goes on with the job in the file, or begins the next one. */
async function backUp(repository: Repository, file: string): Promise<void> {
  const points = await pointsOf(repository);
  const job = readJob(file);
  const interrupted = job !== undefined && !points.has(job.pointId);
  const resumed = interrupted ? await resumeSession(repository, job) : undefined;
  const version = 1 + Math.max(0, job?.version ?? 0);
  const vm = `vm-${version % 2}`;
  const current: Job =
    interrupted && resumed !== undefined ? job : { vm, version, pointId: `${vm}-v${version}` };
  const newest = [...points].filter(([id]) => id.startsWith(current.vm)).at(-1)?.[1];
  const session =
    resumed ??
    (await repository.sessions.begin({
      kind: "backup",
      holder: "child",
      pins: newest === undefined ? [] : [newest],
      silenceSeconds,
    }));
  if (resumed !== undefined) tell({ kind: "resumed", pointId: current.pointId });
  const previous =
    resumed === undefined ? await previousOf(repository, session, newest) : current.previous;
  const { sessionId } = session;
  const save = (more: Partial<Job>): void =>
    saveJob(file, { ...current, sessionId, previous, ...more });
  save({});
  try {
    await transferAndCommit(repository, session, { ...current, previous }, save);
    tell({ kind: "committed", pointId: current.pointId, vm: current.vm });
  } catch (error) {
    // Collections of earlier children end what is silent, and remove what a checkpoint names; the next attempt begins anew.
    if (!isFailure(error, "session.ended") && !isFailure(error, "index.stale")) throw error;
    await session.abort();
    saveJob(file, current);
  }
}

async function transferAndCommit(
  repository: Repository,
  session: Session,
  job: Job,
  save: (more: Partial<Job>) => void,
): Promise<void> {
  const { pointId, vm } = job;
  const recordKey = job.recordKey ?? (await transferOnce(repository, session, job, save));
  // The control plane keeps each stage's result: what is committed is the same in every attempt.
  save({ recordKey });
  await repository.writePoint(session, {
    pointId,
    vmKey: vm,
    vmName: vm,
    providerId: "test",
    jobId: `job-${pointId}`,
    fence: 1,
    takenAt: new Date(0).toISOString(),
    mode: "full",
    consistency: "crash",
    warnings: [],
    metadata: {
      providerKind: "image",
      description: {
        name: vm,
        uuid: "",
        memoryBytes: 0,
        vcpus: 0,
        architecture: "",
        firmware: "bios",
        disks: [],
        nics: [],
        tags: [],
      },
      excludedDisks: [],
      documents: {},
    },
    disks: [{ key: "vda", recordKey, mode: "full", reason: "" }],
  });
}

async function resumeSession(repository: Repository, job: Job): Promise<Session | undefined> {
  if (job.sessionId === undefined) return undefined;
  try {
    return await repository.sessions.resume(job.sessionId);
  } catch (error) {
    if (isFailure(error, "session.ended")) return undefined;
    throw error;
  }
}

async function previousOf(
  repository: Repository,
  session: Session,
  newest: string | undefined,
): Promise<string | undefined> {
  if (newest === undefined || !(await repository.sessions.isUsablePoint(session, newest))) {
    return undefined;
  }
  return (await repository.readPoint(newest)).disks[0]?.recordKey;
}

async function pointsOf(repository: Repository): Promise<Map<string, string>> {
  const points = new Map<string, string>();
  for await (const { pointId, rootKey } of repository.listPoints()) points.set(pointId, rootKey);
  const versionOf = (id: string): number => Number(id.split("-v")[1]);
  return new Map([...points].sort(([left], [right]) => versionOf(left) - versionOf(right)));
}

/** Keeps the newest four. */
async function forgetAndCollect(repository: Repository): Promise<void> {
  const old = [...(await pointsOf(repository))].slice(0, -4);
  for (const [pointId] of old) tell({ kind: "forgetting", pointId });
  const expire = old.map(([, rootKey]) => rootKey);
  try {
    await collect({ repository, expire, holder: "child", observer: "h", allowShare: 1, logger });
    tell({ kind: "collected" });
  } catch (error) {
    // The collector of an earlier child that is not known to be dead yet.
    if (!isFailure(error, "busy")) throw error;
  }
}

async function restoreOne(repository: Repository): Promise<void> {
  const [pointId, rootKey] = [...(await pointsOf(repository))].at(-1) ?? [];
  if (pointId === undefined || rootKey === undefined) return;
  const [disk] = (await repository.readPoint(rootKey)).disks;
  if (disk === undefined) return;
  await restoreDisk({
    repository,
    recordKey: disk.recordKey,
    writer: nullWriter(disk.sizeBytes),
    onProgress: () => undefined,
    signal: new AbortController().signal,
    workers: 0,
    logger,
  });
  tell({ kind: "restored" });
}

function readJob(file: string): Job | undefined {
  try {
    const raw: unknown = JSON.parse(readFileSync(file, "utf8"));
    return raw as Job;
  } catch {
    return undefined;
  }
}

function saveJob(file: string, job: Job): void {
  writeFileSync(`${file}.new`, JSON.stringify(job));
  renameSync(`${file}.new`, file);
}

function readerOf(disk: Uint8Array, onRead: (bytes: number) => void): DiskReader {
  return {
    sizeBytes: disk.length,
    readsMax: 2,
    readBytesMax: 256 * 1024,
    async *extents() {
      yield { offset: 0, length: disk.length, kind: "data" };
    },
    read: async (offset, into) => {
      onRead(into.length);
      into.set(disk.subarray(offset, offset + into.length));
    },
    async [Symbol.asyncDispose]() {},
  };
}

function nullWriter(sizeBytes: number): DiskWriter {
  return {
    sizeBytes,
    startsZeroed: true,
    writesMax: 4,
    writeBytesMax: 2 ** 20,
    write: async () => undefined,
    zero: async () => undefined,
    flush: async () => undefined,
    async [Symbol.asyncDispose]() {},
  };
}
