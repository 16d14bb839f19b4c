import type { BackupJob, RecoveryPoint } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  aBackupJob,
  anInventoryItem,
  aPoint,
  aPolicy,
  aProvider,
  aRepository,
  aRestoreJob,
} from "../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../test/helpers/control-plane.ts";
import { beginBackup } from "./begin-backup/begin-backup.ts";
import { beginRestore } from "./begin-restore/begin-restore.ts";
import { commit } from "./commit/commit.ts";
import { planRestore } from "./plan-restore/plan-restore.ts";
import { planTransfer } from "./plan-transfer/plan-transfer.ts";
import { applyRetention } from "./retention/retention.ts";

const at = "2026-11-20T10:00:00.000Z";
const anchor = { strategy: "checkpoint", state: { checkpoint: "cp-1", jobId: "old" } } as const;

let plane: ControlPlane;
let vmId: string;
beforeEach(async () => {
  plane = await openControlPlane();
  await plane.catalog.putProvider(aProvider(), { create: true });
  await plane.catalog.putRepository(aRepository());
  vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), at);
});
afterEach(() => plane[Symbol.asyncDispose]());

async function failsWith(code: string, promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(isFailure(error) ? error.code : error).toBe(code);
}

async function addJob(jobId: string, change: Partial<BackupJob> = {}): Promise<void> {
  await plane.catalog.createJob(aBackupJob({ jobId, vmId, ...change }));
}

/** A committed point of an earlier job. */
async function addPoint(change: Partial<RecoveryPoint> & { readonly pointId: string }) {
  const point = aPoint({ vmId, jobId: `job-${change.pointId}`, ...change });
  const fence = await plane.catalog.lockVm(vmId, point.jobId);
  await plane.catalog.commitPoint(point, { fence, anchor });
  await plane.catalog.unlockVm(vmId, point.jobId);
}

async function leaveResult(jobId: string, taskName: string, result: Record<string, unknown>) {
  const record = await plane.catalog.claimTask(jobId, taskName, "mover");
  await plane.catalog.finishTask(jobId, record, result);
}

describe("begin-backup", () => {
  test("holds the VM and lets the job run; a retry answers the same", async () => {
    await addJob("a");
    const begun = await beginBackup({ jobId: "a" }, plane);
    expect(begun).toEqual({ jobId: "a", siteQueueUrl: "http://queue/holdfast-local", fence: 1 });
    const job = await plane.catalog.getJob("a");
    expect(job).toMatchObject({ state: "running", fence: 1, stage: "begin" });
    expect(await beginBackup({ jobId: "a" }, plane)).toEqual(begun);
    expect((await plane.catalog.getJob("a")).startedAt).toBe(job.startedAt);
  });

  test("gives each job one session in the repository, however often Begin runs", async () => {
    const sessionOf = async (jobId: string): Promise<string | undefined> => {
      await beginBackup({ jobId }, plane);
      const job = await plane.catalog.getJob(jobId);
      return job.kind === "backup" ? job.repositorySessionId : undefined;
    };
    await addJob("a");
    const first = await sessionOf("a");
    expect(first).toMatch(/^[0-9a-f]{16}$/);
    expect(await sessionOf("a")).toBe(first);
    await plane.catalog.unlockVm(vmId, "a");
    await addJob("b");
    expect(await sessionOf("b")).not.toBe(first);
  });

  test.each([
    { name: "builds on the head", job: {}, expected: { pointId: "p", anchor } },
    { name: "a full one builds on nothing", job: { full: true } },
    { name: "nor does one into another repository", job: { repositoryId: "other" } },
    { name: "nor one without incrementals", job: { incremental: false } },
  ])("$name", async ({ job: { incremental = true, ...change }, expected }) => {
    await plane.catalog.putRepository(aRepository({ repositoryId: "other" }));
    await addPoint({ pointId: "p" });
    const { options } = aBackupJob();
    await addJob("b", { ...change, options: { ...options, incremental } });
    await beginBackup({ jobId: "b" }, plane);
    const job = await plane.catalog.getJob("b");
    expect(job.kind === "backup" && job.previous).toEqual(expected);
  });

  test("a VM held by a running job is busy; one left by an ended job is not", async () => {
    await addJob("holder", { state: "running" });
    await plane.catalog.lockVm(vmId, "holder");
    plane.workflows.started.set("holder", { jobId: "holder", siteQueueUrl: "" });
    await addJob("next");
    await failsWith("busy", beginBackup({ jobId: "next" }, plane));
    await plane.catalog.updateJob("holder", { state: "failed" });
    expect((await beginBackup({ jobId: "next" }, plane)).fence).toBe(2);
  });

  test("does not begin what is cancelled, ended, gone or of another kind", async () => {
    await addJob("c");
    await plane.catalog.requestCancel("c");
    await failsWith("cancelled", beginBackup({ jobId: "c" }, plane));
    await addJob("d", { state: "failed" });
    await failsWith("conflict", beginBackup({ jobId: "d" }, plane));
    await plane.catalog.createJob(aRestoreJob({ jobId: "r" }));
    await failsWith("internal", beginBackup({ jobId: "r" }, plane));
    await failsWith("not-found", beginBackup({ jobId: "none" }, plane));
    await addJob("e");
    await plane.catalog.markGone("kvm-1", "2027-01-01");
    await failsWith("vm.gone", beginBackup({ jobId: "e" }, plane));
  });

  test("a provider or repository that was removed meanwhile is named", async () => {
    await addJob("f", { repositoryId: "removed" });
    await failsWith("not-found", beginBackup({ jobId: "f" }, plane));
    expect((await plane.catalog.getVm(vmId)).lock).toBeUndefined();
  });
});

describe("plans", () => {
  test("one transfer for each disk of the session", async () => {
    await addJob("a");
    const session = { disks: [{ key: "vda", sizeBytes: 1 }, { key: "vdb" }], state: { own: 1 } };
    await leaveResult("a", "snapshot", { session });
    const disks = [{ diskKey: "vda" }, { diskKey: "vdb" }];
    expect(await planTransfer({ jobId: "a" }, plane.catalog)).toEqual({ disks });
    await plane.catalog.createJob(aRestoreJob({ jobId: "r" }));
    await leaveResult("r", "prepare-restore", { session });
    expect(await planRestore({ jobId: "r" }, plane.catalog)).toEqual({ disks });
  });

  test("a cancelled job, a missing or strange result stops there", async () => {
    await addJob("a");
    await failsWith("internal", planTransfer({ jobId: "a" }, plane.catalog));
    await leaveResult("a", "snapshot", { session: { disks: "vda" } });
    await failsWith("internal", planTransfer({ jobId: "a" }, plane.catalog));
    await plane.catalog.requestCancel("a");
    await failsWith("cancelled", planTransfer({ jobId: "a" }, plane.catalog));
  });
});

describe("commit", () => {
  async function reachCommit(jobId: string, point: Partial<RecoveryPoint> = {}) {
    await addJob(jobId);
    await beginBackup({ jobId }, plane);
    await leaveResult(jobId, "snapshot", { session: { disks: [], anchor } });
    const written = aPoint({ vmId, jobId, pointId: `pt-${jobId}`, ...point });
    await leaveResult(jobId, "write-recovery-point", { rootKey: written.rootKey, point: written });
    return written;
  }

  test("lists the point, moves the head with its anchor, and may be repeated", async () => {
    const point = await reachCommit("a");
    expect(await commit({ jobId: "a" }, plane.catalog)).toEqual({ pointId: "pt-a" });
    expect(await commit({ jobId: "a" }, plane.catalog)).toEqual({ pointId: "pt-a" });
    expect(await plane.catalog.listPoints(vmId)).toEqual([point]);
    expect((await plane.catalog.getVm(vmId)).head).toMatchObject({ pointId: "pt-a", anchor });
    expect(await plane.catalog.getJob("a")).toMatchObject({ pointId: "pt-a" });
  });

  test("a crash between head and list is healed by the retry", async () => {
    const point = await reachCommit("a");
    const crashing = {
      ...plane.catalog,
      commitPoint: async (...args: Parameters<typeof plane.catalog.commitPoint>) => {
        await plane.catalog.commitPoint(...args);
        await plane.catalog.unlistPoints([point]);
        throw new Error("crashed");
      },
    };
    await expect(commit({ jobId: "a" }, crashing)).rejects.toThrow("crashed");
    // Also when someone asked to cancel in between: what is committed is committed.
    await plane.catalog.requestCancel("a");
    await commit({ jobId: "a" }, plane.catalog);
    expect(await plane.catalog.listPoints(vmId)).toEqual([point]);
  });

  test("a job that lost its VM commits nothing", async () => {
    await reachCommit("a");
    await plane.catalog.unlockVm(vmId, "a");
    await plane.catalog.lockVm(vmId, "other");
    await failsWith("fence.lost", commit({ jobId: "a" }, plane.catalog));
    expect(await plane.catalog.listPoints(vmId)).toEqual([]);
  });

  test("a cancelled job commits nothing", async () => {
    await reachCommit("a");
    await plane.catalog.requestCancel("a");
    await failsWith("cancelled", commit({ jobId: "a" }, plane.catalog));
    expect(await plane.catalog.listPoints(vmId)).toEqual([]);
  });

  test.each([{ jobId: "b" }, { vmId: "vm-x" }, { repositoryId: "other" }])(
    "a point that is not this job's (%j) is refused",
    async (change) => {
      await reachCommit("a", change);
      await failsWith("internal", commit({ jobId: "a" }, plane.catalog));
    },
  );
});

describe("retention", () => {
  const day = (n: number) => `2026-11-${String(n).padStart(2, "0")}T00:00:00.000Z`;
  const addDays = async (days: readonly number[]) => {
    for (const n of days) await addPoint({ pointId: `d${n}`, takenAt: day(n) });
  };
  const keep = (last: number) => ({ ...aPolicy().retention, last });
  const left = async () => (await plane.catalog.listPoints(vmId)).map(({ pointId }) => pointId);

  test("unlists what the policy does not keep, in the job's repository only", async () => {
    await plane.catalog.putPolicy(aPolicy({ retention: keep(2) }));
    await addPoint({ pointId: "elsewhere", repositoryId: "other", takenAt: day(1) });
    await addDays([2, 3, 4, 5]);
    await addJob("a", { policyId: "nightly" });
    expect(await applyRetention({ jobId: "a" }, plane.catalog)).toEqual({ removed: ["d3", "d2"] });
    expect(await applyRetention({ jobId: "a" }, plane.catalog)).toEqual({ removed: [] });
    expect(await left()).toEqual(["d5", "d4", "elsewhere"]);
  });

  test("without a policy, or with one that was removed, nothing goes", async () => {
    await addDays([1, 2, 3]);
    await addJob("a");
    await addJob("b", { policyId: "removed" });
    for (const jobId of ["a", "b"]) {
      expect(await applyRetention({ jobId }, plane.catalog)).toEqual({ removed: [] });
    }
  });

  test("the head, a running backup's parent and a point being restored stay", async () => {
    await plane.catalog.putPolicy(aPolicy({ retention: keep(0) }));
    await addDays([6, 5, 4, 3, 2, 1]);
    await addJob("running", { state: "running", previous: { pointId: "d4" } });
    await addJob("over", { state: "failed", previous: { pointId: "d3" } });
    const { restore } = aRestoreJob();
    await plane.catalog.createJob(
      aRestoreJob({ jobId: "r", vmId, restore: { ...restore, pointId: "d2" } }),
    );
    await addJob("a", { policyId: "nightly" });
    await applyRetention({ jobId: "a" }, plane.catalog);
    // d6 is the newest, d1 the head (committed last, whatever its date says).
    expect(await left()).toEqual(["d6", "d4", "d2", "d1"]);
  });
});

describe("begin-restore", () => {
  test("runs when point, repository and provider are there", async () => {
    await addPoint({ pointId: "point-1" });
    await plane.catalog.createJob(aRestoreJob({ jobId: "r" }));
    expect(await beginRestore({ jobId: "r" }, plane)).toEqual({
      jobId: "r",
      siteQueueUrl: "http://queue/holdfast-local",
    });
    expect(await plane.catalog.getJob("r")).toMatchObject({ state: "running" });
  });

  test("does not run without its point, or cancelled", async () => {
    await plane.catalog.createJob(aRestoreJob({ jobId: "r" }));
    await failsWith("not-found", beginRestore({ jobId: "r" }, plane));
    await plane.catalog.requestCancel("r");
    await failsWith("cancelled", beginRestore({ jobId: "r" }, plane));
  });
});
