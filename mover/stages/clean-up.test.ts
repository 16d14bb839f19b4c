import type { BackupJob, Job, RestoreJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Driver } from "@holdfast/shared/ports/driver";
import { isOpen } from "@holdfast/shared/repository/session/session-state";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { afterEach, beforeEach, expect, test } from "vitest";
import { aBackupJob, anInventoryItem, aRestoreJob } from "../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../test/helpers/control-plane.ts";
import { createChunkIndexLoader } from "../pipeline/chunk-index-loader.ts";
import { createTestRepository } from "../pipeline/test-repository.ts";
import { abandonRestore } from "./finish-restore.ts";
import { release } from "./release.ts";
import type { StageContext } from "./stage.ts";

let plane: ControlPlane;
let calls: string[];
beforeEach(async () => {
  plane = await openControlPlane();
  calls = [];
});
afterEach(() => plane[Symbol.asyncDispose]());

/** Only what cleaning up calls. */
const driver = {
  release: async () => void calls.push("release"),
  abandonRestore: async () => void calls.push("abandon"),
} as unknown as Driver;

async function contextOf(job: Job, taskName: string): Promise<StageContext> {
  return {
    catalog: plane.catalog,
    clock: plane.clock,
    workers: undefined,
    openDriver: async () => driver,
    openRepository: () => Promise.reject(new Error("not needed")),
    job,
    record: await plane.catalog.claimTask(job.jobId, taskName, "cleaner"),
    signal: new AbortController().signal,
    logger: plane.logger,
    watch: () => undefined,
  };
}

async function addBackup(): Promise<BackupJob> {
  const vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
  const job = aBackupJob({ jobId: "a", vmId, state: "running" });
  await plane.catalog.createJob(job);
  return job;
}

const session = { jobId: "a", disks: [{ key: "vda" }, { key: "vdb" }] };

test("a mover that still holds a task of a failed job makes nothing more once the clean-up began", async () => {
  const job = await addBackup();
  const snapshot = await plane.catalog.claimTask("a", "snapshot", "late");
  await release(await contextOf(job, "release"), job, "failed");
  await expect(plane.catalog.confirmClaim("a", snapshot)).rejects.toMatchObject({
    code: "fence.lost",
  });
});

test("the same for its transfers", async () => {
  const job = await addBackup();
  const snapshot = await plane.catalog.claimTask("a", "snapshot", "m");
  await plane.catalog.finishTask("a", snapshot, { session });
  const transfer = await plane.catalog.claimTask("a", "transfer-disk:vdb", "late");
  await release(await contextOf(job, "release"), job, "failed");
  expect(calls).toEqual(["release"]);
  await expect(plane.catalog.confirmClaim("a", transfer)).rejects.toMatchObject({
    code: "fence.lost",
  });
});

/** A backup job that has begun its session in the repository. */
async function addWriting() {
  const repository = await createTestRepository(createMemoryObjectStore());
  const repositorySessionId = "00112233aabbccdd";
  const added = await addBackup();
  await plane.catalog.updateJob("a", { repositorySessionId });
  const job = { ...added, repositorySessionId };
  const indexLoader = createChunkIndexLoader(repository, { logger: plane.logger });
  const context = {
    ...(await contextOf(job, "release")),
    openRepository: async () => ({ repository, indexLoader }),
  };
  await repository.sessions.begin({
    kind: "backup",
    holder: "job a",
    pins: [],
    silenceSeconds: 60,
    sessionId: repositorySessionId,
  });
  const isOpenNow = async (): Promise<boolean> =>
    isOpen((await repository.sessions.list()).get(repositorySessionId));
  return { job, context, isOpenNow };
}

test("a failed job ends its session in the repository", async () => {
  const { job, context, isOpenNow } = await addWriting();
  expect(await isOpenNow()).toBe(true);
  await release(context, job, "failed");
  expect(await isOpenNow()).toBe(false);
  await release(context, job, "failed");
});

test("but not once its point may have been written: then a collection decides", async () => {
  const { job, context, isOpenNow } = await addWriting();
  await plane.catalog.claimTask("a", "write-recovery-point", "late");
  await release(context, job, "failed");
  expect(await isOpenNow()).toBe(true);
});

test("a repository that is away does not hold up the guest's clean-up", async () => {
  const { job, context } = await addWriting();
  const snapshot = await plane.catalog.claimTask("a", "snapshot", "m");
  await plane.catalog.finishTask("a", snapshot, { session });
  const openRepository = () =>
    Promise.reject(new Failure("storage.unreachable", { message: "away" }));
  await release({ ...context, openRepository }, job, "failed");
  expect(calls).toEqual(["release"]);
});

async function addRestore(): Promise<RestoreJob> {
  const job = aRestoreJob({ jobId: "a", state: "running" });
  await plane.catalog.createJob(job);
  const prepare = await plane.catalog.claimTask("a", "prepare-restore", "m");
  await plane.catalog.finishTask("a", prepare, { session });
  return job;
}

test("abandoning a restore takes its tasks away from movers that still hold them", async () => {
  const job = await addRestore();
  const held = await Promise.all(
    ["restore-disk:vda", "finish-restore"].map((name) =>
      plane.catalog.claimTask("a", name, "late"),
    ),
  );
  await abandonRestore(await contextOf(job, "abandon-restore"), job);
  expect(calls).toEqual(["abandon"]);
  for (const record of held) {
    await expect(plane.catalog.confirmClaim("a", record)).rejects.toMatchObject({
      code: "fence.lost",
    });
  }
});

test("a restore whose VM exists is not abandoned any more", async () => {
  const job = await addRestore();
  const finish = await plane.catalog.claimTask("a", "finish-restore", "m");
  await plane.catalog.finishTask("a", finish, { name: "web", externalId: "u", started: true });
  await abandonRestore(await contextOf(job, "abandon-restore"), job);
  expect(calls).toEqual([]);
});
