import { type Job, VmDescriptionItem } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  aBackupJob,
  anInventoryItem,
  aPoint,
  aPolicy,
  aProvider,
  aRepository,
  aRestoreJob,
} from "../helpers/catalog-samples.ts";

export type CatalogHarness = {
  readonly name: string;
  /** An empty catalog, in another table or partition each time. */
  readonly open: () => Promise<AsyncDisposable & { readonly catalog: Catalog }>;
};

const at = "2026-11-20T10:00:00.000Z";

/** What every catalog keeps; tests share one catalog and use names of their own. */
export function describeCatalog(harness: CatalogHarness): void {
  describe(`catalog: ${harness.name}`, () => {
    let opened: Awaited<ReturnType<CatalogHarness["open"]>>;
    let catalog: Catalog;
    beforeAll(async () => {
      opened = await harness.open();
      catalog = opened.catalog;
    });
    afterAll(async () => opened[Symbol.asyncDispose]());

    const addVm = (name: string) => catalog.upsertVm("kvm-1", anInventoryItem(name), at);
    const failsWith = async (code: string, promise: Promise<unknown>) => {
      const error = await promise.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(isFailure(error) ? error.code : error).toBe(code);
    };

    describe("providers, repositories, policies", () => {
      test("a provider comes back as it was put, and a taken id is a conflict", async () => {
        const provider = aProvider({ providerId: "p-1" });
        await catalog.putProvider(provider, { create: true });
        expect(await catalog.getProvider("p-1")).toEqual(provider);
        await failsWith(
          "conflict",
          catalog.putProvider(aProvider({ providerId: "p-1", siteId: "other" }), { create: true }),
        );
        await failsWith(
          "not-found",
          catalog.putProvider(aProvider({ providerId: "p-none" }), { create: false }),
        );
        expect((await catalog.listProviders()).map((p) => p.providerId)).toContain("p-1");
      });

      test("the same creation twice is no conflict, as after a lost answer", async () => {
        const provider = aProvider({ providerId: "p-twice" });
        await catalog.putProvider(provider, { create: true });
        await catalog.putProvider(provider, { create: true });
      });

      test("a good sync takes the error of the last one away", async () => {
        await catalog.putProvider(aProvider({ providerId: "p-sync" }), { create: true });
        await catalog.recordSync("p-sync", { at: "t1", error: "no route" });
        expect(await catalog.getProvider("p-sync")).toMatchObject({ lastSyncError: "no route" });
        await catalog.recordSync("p-sync", { at: "t2" });
        const provider = await catalog.getProvider("p-sync");
        expect(provider.lastSyncAt).toBe("t2");
        expect(provider.lastSyncError).toBeUndefined();
        await failsWith("not-found", catalog.recordSync("p-none", { at: "t" }));
      });

      test("removing a provider removes its VMs without points and keeps the others as gone", async () => {
        await catalog.putProvider(aProvider({ providerId: "p-leave" }), { create: true });
        const bare = await catalog.upsertVm("p-leave", anInventoryItem("bare"), at);
        const backedUp = await catalog.upsertVm("p-leave", anInventoryItem("kept"), at);
        const fence = await catalog.lockVm(backedUp, "job-leave");
        await catalog.commitPoint(
          aPoint({ vmId: backedUp, jobId: "job-leave", pointId: "pt-leave" }),
          { fence, anchor: undefined },
        );
        await catalog.unlockVm(backedUp, "job-leave");
        await catalog.removeProvider("p-leave");
        await failsWith("not-found", catalog.getProvider("p-leave"));
        await failsWith("not-found", catalog.getVm(bare));
        expect(await catalog.getVm(backedUp)).toMatchObject({ gone: true });
        await failsWith("not-found", catalog.removeProvider("p-leave"));
      });

      test("limits are replaced, and nothing else is", async () => {
        const provider = aProvider({ providerId: "p-limits" });
        await catalog.putProvider(provider, { create: true });
        await catalog.recordSync("p-limits", { at: "t1" });
        const limits = { readBytesPerSecond: 1024, requestsPerSecond: 0 };
        const limited = await catalog.limitProvider("p-limits", limits);
        expect(limited).toEqual({ ...provider, lastSyncAt: "t1", limits });
        await catalog.recordSync("p-limits", { at: "t2" });
        expect(await catalog.getProvider("p-limits")).toMatchObject({ lastSyncAt: "t2", limits });
        await catalog.limitProvider("p-limits", {});
        expect((await catalog.getProvider("p-limits")).limits).toEqual({});
        await failsWith("not-found", catalog.limitProvider("p-none", limits));

        await catalog.putRepository(aRepository({ repositoryId: "r-limits" }), { create: true });
        await catalog.limitRepository("r-limits", { writeBytesPerSecond: 5 });
        expect(await catalog.getRepository("r-limits")).toEqual(
          aRepository({ repositoryId: "r-limits", limits: { writeBytesPerSecond: 5 } }),
        );
        await failsWith("not-found", catalog.limitRepository("r-none", limits));
      });

      test("repositories and policies come back, are replaced and removed", async () => {
        await catalog.putRepository(aRepository({ repositoryId: "r-1" }), { create: true });
        await failsWith(
          "conflict",
          catalog.putRepository(aRepository({ repositoryId: "r-1", url: "/elsewhere" }), {
            create: true,
          }),
        );
        expect(await catalog.getRepository("r-1")).toEqual(aRepository({ repositoryId: "r-1" }));
        expect(await catalog.listRepositories()).toContainEqual(
          aRepository({ repositoryId: "r-1" }),
        );
        await failsWith("not-found", catalog.getRepository("r-none"));

        await catalog.putPolicy(aPolicy({ policyId: "a" }), { create: true });
        await failsWith(
          "conflict",
          catalog.putPolicy(aPolicy({ policyId: "a", schedule: "rate(1 day)" }), { create: true }),
        );
        await catalog.putPolicy(aPolicy({ policyId: "a", schedule: "rate(1 day)" }));
        expect(await catalog.getPolicy("a")).toMatchObject({ schedule: "rate(1 day)" });
        expect((await catalog.listPolicies()).map((p) => p.policyId)).toEqual(["a"]);
        await catalog.removePolicy("a");
        await failsWith("not-found", catalog.getPolicy("a"));
        await failsWith("not-found", catalog.removePolicy("a"));
      });
    });

    describe("VMs", () => {
      test("a sync updates a VM and keeps its fence, lock and head", async () => {
        const vmId = await addVm("sync");
        const fence = await catalog.lockVm(vmId, "job-sync");
        await catalog.commitPoint(aPoint({ vmId, jobId: "job-sync", pointId: "pt-sync" }), {
          fence,
          anchor: { strategy: "checkpoint", state: { name: "cp", nested: { big: 2 ** 53 - 1 } } },
        });
        const before = await catalog.getVm(vmId);
        const again = await catalog.upsertVm(
          "kvm-1",
          { ...anInventoryItem("sync"), power: "stopped" },
          "2026-11-20T11:00:00.000Z",
        );
        expect(again).toBe(vmId);
        expect(await catalog.getVm(vmId)).toEqual({
          ...before,
          power: "stopped",
          seenAt: "2026-11-20T11:00:00.000Z",
        });
        expect(before.head).toEqual({
          pointId: "pt-sync",
          repositoryId: "main",
          jobId: "job-sync",
          takenAt: at,
          anchor: { strategy: "checkpoint", state: { name: "cp", nested: { big: 2 ** 53 - 1 } } },
        });
        expect(before.lock).toEqual({ jobId: "job-sync", fence });
      });

      test("only VMs of that provider that a sync did not see are gone", async () => {
        const [old, fresh] = await Promise.all([
          catalog.upsertVm("p-gone", anInventoryItem("old"), "2026-01-01T00:00:00.000Z"),
          catalog.upsertVm("p-gone", anInventoryItem("fresh"), "2026-01-02T00:00:00.000Z"),
        ]);
        const other = await catalog.upsertVm("p-else", anInventoryItem("old"), "2025-01-01");
        expect(await catalog.markGone("p-gone", "2026-01-02T00:00:00.000Z")).toBe(1);
        expect(await catalog.markGone("p-gone", "2026-01-02T00:00:00.000Z")).toBe(0);
        expect((await catalog.getVm(old)).gone).toBe(true);
        expect((await catalog.getVm(fresh)).gone).toBe(false);
        expect((await catalog.getVm(other)).gone).toBe(false);
        await catalog.upsertVm("p-gone", anInventoryItem("old"), "2026-01-03T00:00:00.000Z");
        expect((await catalog.getVm(old)).gone).toBe(false);
      });

      test("a VM is found by id or exact name; several of one name are named in the conflict", async () => {
        const vmId = await addVm("find me");
        await addVm("find me not");
        expect((await catalog.findVm(vmId)).vmId).toBe(vmId);
        expect((await catalog.findVm("find me")).vmId).toBe(vmId);
        await failsWith("not-found", catalog.findVm("find"));
        await failsWith("not-found", catalog.findVm(""));
        const twin = await catalog.upsertVm("p-twin", anInventoryItem("find me"), at);
        const error = await catalog.findVm("find me").catch((reason: unknown) => reason);
        expect(isFailure(error, "conflict")).toBe(true);
        expect(String(error)).toContain(vmId);
        expect(String(error)).toContain(twin);
      });

      test("a name may be long and hostile", async () => {
        const name = `${"ü".repeat(400)}#<script>\u0000'"$(id)`;
        const vmId = await addVm(name);
        expect((await catalog.findVm(name)).vmId).toBe(vmId);
        await failsWith("not-found", catalog.findVm("ü".repeat(400)));
      });

      test("the list has all VMs of a provider, more than fit into one page", async () => {
        const description = {
          ...anInventoryItem().description,
          tags: ["x".repeat(30_000)],
        };
        const names = Array.from({ length: 60 }, (_, i) => `many-${String(i).padStart(3, "0")}`);
        for (const name of names) {
          await catalog.upsertVm(
            "p-many",
            { ...anInventoryItem(name), description: { ...description, name } },
            at,
          );
        }
        const listed = await catalog.listVms({ providerId: "p-many" });
        expect(listed.map((vm) => vm.description.name)).toEqual(names);
      });
    });

    describe("lock and commit", () => {
      test("of many racing jobs one takes the lock, the others hear which", async () => {
        const vmId = await addVm("race");
        const jobs = Array.from({ length: 10 }, (_, i) => `racer-${i}`);
        const outcomes = await Promise.allSettled(jobs.map((jobId) => catalog.lockVm(vmId, jobId)));
        const winners = outcomes.filter(({ status }) => status === "fulfilled");
        expect(winners).toHaveLength(1);
        const holder = (await catalog.getVm(vmId)).lock?.jobId;
        for (const outcome of outcomes) {
          if (outcome.status === "fulfilled") continue;
          expect(isFailure(outcome.reason, "busy")).toBe(true);
          expect(outcome.reason.details.jobId).toBe(holder);
        }
      });

      test("the same job gets the same fence again; the next job a higher one", async () => {
        const vmId = await addVm("again");
        const fence = await catalog.lockVm(vmId, "a");
        expect(await catalog.lockVm(vmId, "a")).toBe(fence);
        await catalog.unlockVm(vmId, "b");
        await failsWith("busy", catalog.lockVm(vmId, "b"));
        await catalog.unlockVm(vmId, "a");
        expect(await catalog.lockVm(vmId, "b")).toBeGreaterThan(fence);
        await failsWith("not-found", catalog.lockVm("vm-none", "a"));
      });

      test("of racing commits under one fence one wins, also when both repeat", async () => {
        const vmId = await addVm("commit-race");
        const fence = await catalog.lockVm(vmId, "job-c");
        const points = Array.from({ length: 6 }, (_, i) =>
          aPoint({ vmId, jobId: "job-c", pointId: `pt-c-${i}`, rootKey: `points/c-${i}` }),
        );
        const race = async () =>
          Promise.allSettled(
            points.map((point) => catalog.commitPoint(point, { fence, anchor: undefined })),
          );
        const first = await race();
        const winner = first.findIndex(({ status }) => status === "fulfilled");
        const statuses = first.map(({ status }) => status);
        expect(statuses.filter((status) => status === "fulfilled")).toHaveLength(1);
        for (const outcome of first) {
          if (outcome.status === "rejected") {
            expect(isFailure(outcome.reason, "fence.lost")).toBe(true);
          }
        }
        expect((await race()).map(({ status }) => status)).toEqual(statuses);
        const listed = await catalog.listPoints(vmId);
        expect(listed.map(({ pointId }) => pointId)).toEqual([`pt-c-${winner}`]);
        expect((await catalog.getVm(vmId)).head?.pointId).toBe(`pt-c-${winner}`);
      });

      test("a commit without the lock, or under an older fence, is fenced off", async () => {
        const vmId = await addVm("fenced");
        const old = await catalog.lockVm(vmId, "job-1");
        await catalog.unlockVm(vmId, "job-1");
        const point = aPoint({ vmId, jobId: "job-1", pointId: "pt-late" });
        await failsWith(
          "fence.lost",
          catalog.commitPoint(point, { fence: old, anchor: undefined }),
        );
        const fence = await catalog.lockVm(vmId, "job-1");
        await failsWith(
          "fence.lost",
          catalog.commitPoint(point, { fence: old, anchor: undefined }),
        );
        expect(await catalog.listPoints(vmId)).toEqual([]);
        await catalog.commitPoint(point, { fence, anchor: undefined });
        await catalog.unlockVm(vmId, "job-1");
        // The retry of a commit that succeeded is a success, whoever holds the VM by now.
        await catalog.commitPoint(point, { fence, anchor: undefined });
        expect(await catalog.getPoint("pt-late")).toEqual(point);
      });

      test("points are listed newest first, and unlisted twice without harm", async () => {
        const vmId = await addVm("points");
        const points = ["03", "01", "02"].map((day) =>
          aPoint({
            vmId,
            jobId: `job-${day}`,
            pointId: `pt-day-${day}`,
            takenAt: `2026-11-${day}T00:00:00.000Z`,
          }),
        );
        for (const point of points) {
          const fence = await catalog.lockVm(vmId, point.jobId);
          await catalog.commitPoint(point, { fence, anchor: undefined });
          await catalog.unlockVm(vmId, point.jobId);
        }
        const listed = await catalog.listPoints(vmId);
        expect(listed.map(({ pointId }) => pointId)).toEqual([
          "pt-day-03",
          "pt-day-02",
          "pt-day-01",
        ]);
        await catalog.unlistPoints(listed.slice(2));
        await catalog.unlistPoints(listed.slice(2));
        await failsWith("not-found", catalog.getPoint("pt-day-01"));
        expect(await catalog.listPoints(vmId)).toHaveLength(2);
      });

      test("an unlisted point is noted for its repository until it is said to be removed, and not while it is listed", async () => {
        const vmId = await addVm("expiring");
        const commit = async (jobId: string, pointId: string) => {
          const fence = await catalog.lockVm(vmId, jobId);
          const point = aPoint({ vmId, jobId, pointId, repositoryId: "r-expiring" });
          await catalog.commitPoint(point, { fence, anchor: undefined });
          await catalog.unlockVm(vmId, jobId);
          return point;
        };
        const point = await commit("job-expiring", "pt-expiring");
        const other = await commit("job-staying", "pt-staying");
        expect(await catalog.listExpired("r-expiring")).toEqual([]);
        await catalog.unlistPoints([point]);
        await catalog.unlistPoints([point]);
        const { pointId, rootKey, repositoryId, takenAt, vmName } = point;
        const noted = { pointId, vmId, vmName, repositoryId, rootKey, takenAt };
        expect(await catalog.listExpired("r-expiring")).toEqual([noted]);
        expect(await catalog.listExpired("r-other")).toEqual([]);
        // A commit that is repeated late, or an import, lists it again.
        const description = VmDescriptionItem.parse(anInventoryItem("expiring").description);
        await catalog.importPoint({ point, fence: 1, description });
        expect(await catalog.listExpired("r-expiring")).toEqual([]);
        await catalog.unlistPoints([point]);
        await catalog.forgetExpired("r-other", [pointId]);
        expect(await catalog.listExpired("r-expiring")).toHaveLength(1);
        await catalog.forgetExpired("r-expiring", [pointId, "pt-never-known"]);
        await catalog.forgetExpired("r-expiring", [pointId]);
        expect(await catalog.listExpired("r-expiring")).toEqual([]);
        expect(await catalog.listPoints(vmId)).toEqual([other]);
      });

      test("an imported point is listed with its VM, again and out of order too; what is there stays", async () => {
        const description = VmDescriptionItem.parse(anInventoryItem("web").description);
        const at = (hour: string, pointId: string) => ({
          point: aPoint({ vmId: "vm-lost", pointId, takenAt: `2026-11-20T${hour}:00:00.000Z` }),
          fence: 7,
          description: { ...description, name: `web at ${hour}` },
        });
        // Where the first answer was lost, it is there already.
        expect(await catalog.importPoint(at("12", "pt-2"))).toMatch(/added|present/);
        await catalog.importPoint(at("11", "pt-1"));
        expect(await catalog.importPoint(at("12", "pt-2"))).toBe("present");
        const other = at("12", "pt-2");
        const moved = { ...other, point: { ...other.point, rootKey: "points/vm-lost/other" } };
        await expect(catalog.importPoint(moved)).rejects.toMatchObject({ code: "conflict" });
        const listed = await catalog.listPoints("vm-lost");
        expect(listed).toEqual([at("12", "pt-2").point, at("11", "pt-1").point]);
        const vm = await catalog.getVm("vm-lost");
        expect(vm).toMatchObject({ gone: true, fence: 7, head: { pointId: "pt-2" } });
        expect(vm.head?.anchor).toBeUndefined();
        expect(vm.description.name).toBe("web at 12");
        expect((await catalog.findVm("web at 12")).vmId).toBe("vm-lost");
      });

      test("an import does not touch what a job or an inventory says of a VM", async () => {
        const vmId = await addVm("import-held");
        const fence = await catalog.lockVm(vmId, "job-1");
        const point = aPoint({ vmId, pointId: "pt-9", jobId: "job-1" });
        const anchor = { strategy: "checkpoint", state: {} } as const;
        await catalog.commitPoint(point, { fence, anchor });
        const before = await catalog.getVm(vmId);
        const imported = aPoint({ vmId, pointId: "pt-10", takenAt: "2027-01-01T00:00:00.000Z" });
        const description = VmDescriptionItem.parse(anInventoryItem("older").description);
        await catalog.importPoint({ point: imported, fence: 0, description });
        expect(await catalog.getVm(vmId)).toEqual(before);
        await catalog.unlockVm(vmId, "job-1");
        expect(await catalog.importPoint({ point: imported, fence: 0, description })).toBe(
          "present",
        );
        expect((await catalog.getVm(vmId)).head).toEqual(before.head);
      });

      test("only the holder clears the anchor, and the head stays", async () => {
        const vmId = await addVm("anchor");
        const fence = await catalog.lockVm(vmId, "job-a");
        await catalog.commitPoint(aPoint({ vmId, jobId: "job-a", pointId: "pt-anchor" }), {
          fence,
          anchor: { strategy: "ssh-snapshot", state: { snapshot: "s" } },
        });
        await failsWith("fence.lost", catalog.clearAnchor(vmId, "job-b"));
        await catalog.clearAnchor(vmId, "job-a");
        const { head } = await catalog.getVm(vmId);
        expect(head?.pointId).toBe("pt-anchor");
        expect(head?.anchor).toBeUndefined();
      });
    });

    describe("jobs", () => {
      test("every kind of job comes back as it was created; an id is taken once", async () => {
        const jobs: readonly Job[] = [
          aBackupJob({ jobId: "kinds-b", policyId: "nightly" }),
          aRestoreJob({ jobId: "kinds-r" }),
          {
            kind: "inspect",
            mode: "sync",
            jobId: "kinds-i",
            state: "queued",
            providerId: "kvm-1",
            siteId: "local",
            createdAt: at,
            warnings: [],
          },
        ];
        for (const job of jobs) {
          await catalog.createJob(job);
          expect(await catalog.getJob(job.jobId)).toEqual(job);
        }
        await failsWith("conflict", catalog.createJob(aBackupJob({ jobId: "kinds-b" })));
        await failsWith("not-found", catalog.getJob("kinds-none"));
      });

      test("lists are newest first, bounded, and by VM", async () => {
        for (const n of [1, 3, 2]) {
          await catalog.createJob(
            aBackupJob({
              jobId: `list-${n}`,
              vmId: "vm-list",
              createdAt: `2027-01-0${n}T00:00:00Z`,
            }),
          );
        }
        await catalog.createJob(
          aRestoreJob({ jobId: "list-r", vmId: "vm-list", createdAt: "2027-01-04T00:00:00Z" }),
        );
        const ids = async (limit: number, vmId?: string) =>
          (await catalog.listJobs({ limit, ...(vmId === undefined ? {} : { vmId }) })).map(
            ({ jobId }) => jobId,
          );
        expect(await ids(3)).toEqual(["list-r", "list-3", "list-2"]);
        expect(await ids(10, "vm-list")).toEqual(["list-r", "list-3", "list-2", "list-1"]);
        expect(await ids(1, "vm-list")).toEqual(["list-r"]);
        expect(await ids(10, "vm-none")).toEqual([]);
        expect(await ids(0)).toEqual([]);
      });

      test("an ended job does not change, except to say the same end again", async () => {
        await catalog.createJob(aBackupJob({ jobId: "end" }));
        await catalog.updateJob("end", { state: "running", startedAt: at });
        await catalog.updateJob("end", {
          state: "failed",
          failure: { code: "vm.gone", message: "gone", causes: [] },
        });
        await catalog.updateJob("end", { state: "failed", endedAt: at });
        await failsWith("conflict", catalog.updateJob("end", { state: "succeeded" }));
        await failsWith("conflict", catalog.updateJob("end", { state: "running" }));
        await failsWith("conflict", catalog.updateJob("end", { stage: "x" }));
        await failsWith("conflict", catalog.requestCancel("end"));
        expect(await catalog.getJob("end")).toMatchObject({
          state: "failed",
          endedAt: at,
          failure: { code: "vm.gone" },
        });
        await failsWith("not-found", catalog.updateJob("end-none", { stage: "x" }));
      });

      test("a cancelled job never runs again", async () => {
        await catalog.createJob(aBackupJob({ jobId: "cancel" }));
        await catalog.requestCancel("cancel");
        await catalog.requestCancel("cancel");
        await failsWith("conflict", catalog.updateJob("cancel", { state: "running" }));
        await catalog.updateJob("cancel", { stage: "release", warnings: ["w"] });
        await catalog.updateJob("cancel", { state: "cancelled" });
        await failsWith("not-found", catalog.requestCancel("cancel-none"));
      });

      test("the log keeps its order, and progress is the latest of each disk", async () => {
        for (let i = 0; i < 20; i += 1) {
          await catalog.appendLog("job-log", { time: at, level: "info", message: `line ${i}` });
        }
        const log = await catalog.listLog("job-log");
        expect(log.map(({ message }) => message)).toEqual(
          Array.from({ length: 20 }, (_, i) => `line ${i}`),
        );
        const progress = {
          diskKey: "vda",
          sizeBytes: 10,
          bytesDone: 1,
          bytesTotal: 10,
          bytesRead: 1,
          bytesNew: 1,
          bytesStored: 1,
          mode: "full",
          reason: "",
          startedAt: at,
          updatedAt: at,
          finished: false,
        } as const;
        await catalog.putProgress("job-log", progress);
        await catalog.putProgress("job-log", { ...progress, bytesDone: 10, finished: true });
        await catalog.putProgress("job-log", { ...progress, diskKey: "vdb" });
        expect(await catalog.listProgress("job-log")).toMatchObject([
          { diskKey: "vda", bytesDone: 10, finished: true },
          { diskKey: "vdb", finished: false },
        ]);
      });
    });

    describe("tasks", () => {
      test("racing movers get claims of their own; only the last may go on", async () => {
        const movers = Array.from({ length: 8 }, (_, i) => `mover-${i}`);
        const records = await Promise.all(
          movers.map((moverId) => catalog.claimTask("job-t", "snapshot", moverId)),
        );
        const claims = new Set(records.map(({ claim }) => claim));
        expect(claims.size).toBe(movers.length);
        const last = records.find(({ claim }) => claim === Math.max(...claims));
        for (const record of records) {
          if (record === last) await catalog.confirmClaim("job-t", record);
          else {
            await failsWith("fence.lost", catalog.confirmClaim("job-t", record));
            await failsWith("fence.lost", catalog.finishTask("job-t", record, {}));
            await failsWith("fence.lost", catalog.putCheckpoint("job-t", record, {}));
          }
        }
      });

      test("a finished task gives its result to whoever asks and is claimed no more", async () => {
        const record = await catalog.claimTask("job-f", "snapshot", "m");
        expect(record).toEqual({ taskName: "snapshot", claim: record.claim, moverId: "m" });
        expect(record.claim).toBeGreaterThan(0);
        expect(await catalog.getTaskResult("job-f", "snapshot")).toBeUndefined();
        const result = { session: { disks: [], empty: "", nothing: null, float: 0.1 } };
        await catalog.finishTask("job-f", record, result);
        await catalog.finishTask("job-f", record, result);
        expect(await catalog.getTaskResult("job-f", "snapshot")).toEqual(result);
        const again = await catalog.claimTask("job-f", "snapshot", "other");
        expect(again).toEqual({ ...record, result });
        await failsWith("fence.lost", catalog.finishTask("job-f", record, { other: true }));
        await failsWith("fence.lost", catalog.putCheckpoint("job-f", record, {}));
      });

      test("a mover that takes a task twice goes on with its last claim only", async () => {
        const first = await catalog.claimTask("job-s", "snapshot", "m");
        const second = await catalog.claimTask("job-s", "snapshot", "m");
        await failsWith("fence.lost", catalog.confirmClaim("job-s", first));
        await failsWith("fence.lost", catalog.putCheckpoint("job-s", first, {}));
        await failsWith("fence.lost", catalog.finishTask("job-s", first, {}));
        await catalog.confirmClaim("job-s", second);
        await catalog.finishTask("job-s", second, { by: "second" });
        expect(await catalog.getTaskResult("job-s", "snapshot")).toEqual({ by: "second" });
      });

      test("a checkpoint survives to the next claim and may be large", async () => {
        const record = await catalog.claimTask("job-k", "transfer-disk:vda", "m");
        const leaves = Array.from({ length: 2000 }, (_, i) => `${i}`.padStart(64, "0"));
        await catalog.putCheckpoint("job-k", record, { leaves });
        const next = await catalog.claimTask("job-k", "transfer-disk:vda", "n");
        expect(next.claim).toBeGreaterThan(record.claim);
        expect(await catalog.getCheckpoint("job-k", "transfer-disk:vda")).toEqual({ leaves });
        await failsWith("fence.lost", catalog.putCheckpoint("job-k", record, { leaves: [] }));
        await catalog.finishTask("job-k", next, { done: true });
        expect(await catalog.getCheckpoint("job-k", "transfer-disk:vda")).toBeUndefined();
        expect(await catalog.getCheckpoint("job-k", "none")).toBeUndefined();
      });
    });

    test("movers are listed as they last said, until they are forgotten", async () => {
      const mover = {
        moverId: "m-1",
        siteId: "local",
        version: "0.1.0",
        startedAt: "2026-11-20T10:00:00.000Z",
        seenAt: "2026-11-20T10:00:00.000Z",
      };
      await catalog.recordMover(mover);
      await catalog.recordMover({ ...mover, moverId: "m-2" });
      await catalog.recordMover({ ...mover, seenAt: "2026-11-20T10:00:30.000Z" });
      expect(await catalog.listMovers()).toEqual([
        { ...mover, seenAt: "2026-11-20T10:00:30.000Z" },
        { ...mover, moverId: "m-2" },
      ]);
      for (const moverId of ["m-1", "m-2", "m-2"]) await catalog.forgetMover(moverId);
      expect(await catalog.listMovers()).toEqual([]);
    });

    describe("ledger", () => {
      test("entries are listed oldest first until they are settled, each owner's apart", async () => {
        const ledger = catalog.ledger({ vmId: "vm-ledger" });
        const entry = (id: string) => ({
          id,
          jobId: "job-1",
          kind: "overlay",
          name: `/images/${id}`,
          details: { node: 1, deep: { list: ["a"] } },
          kept: false,
        });
        for (const id of ["job-1/z", "job-1/a", "job-1/m"]) await ledger.intend(entry(id));
        await ledger.intend({ ...entry("job-1/a"), name: "changed" });
        await ledger.keep("job-1/m");
        expect(await ledger.list()).toEqual([
          entry("job-1/z"),
          entry("job-1/a"),
          { ...entry("job-1/m"), kept: true },
        ]);
        await ledger.intend(entry("job-1/m"));
        expect((await ledger.list()).at(-1)?.kept).toBe(true);
        expect(await catalog.ledger({ restoreJobId: "vm-ledger" }).list()).toEqual([]);
        expect(await catalog.ledger({ vmId: "vm-ledger-2" }).list()).toEqual([]);
        await ledger.settle("job-1/z");
        await ledger.settle("job-1/z");
        await ledger.settle("unknown");
        expect((await ledger.list()).map(({ id }) => id)).toEqual(["job-1/a", "job-1/m"]);
        await failsWith("not-found", ledger.keep("unknown"));
      });
    });
  });
}
