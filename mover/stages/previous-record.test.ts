import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { aBackupJob, anInventoryItem } from "../../test/helpers/catalog-samples.ts";
import { openControlPlane } from "../../test/helpers/control-plane.ts";
import { backUp, copyStore, createTestClock, diskOf, openAt } from "../pipeline/test-collect.ts";
import { beginSession, createTestRepository } from "../pipeline/test-repository.ts";
import type { StageContext } from "./stage.ts";
import { previousRecord } from "./transfer-disk.ts";

test("T06: a store that was set back to yesterday is noticed by what the catalog knows, and named", async () => {
  await using plane = await openControlPlane();
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const clock = createTestClock();
  await backUp(await openAt(store, clock), { vm: "a", pointId: "p1", disk: diskOf(1, 2) });
  const yesterday = await copyStore(store);
  const repository = await openAt(store, clock);
  const rootKey = await backUp(repository, { vm: "a", pointId: "p2", disk: diskOf(1, 3) });

  const vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
  const job: BackupJob = aBackupJob({ jobId: "a", vmId, state: "running" });
  await plane.catalog.createJob(job);
  const logged: string[] = [];
  const catalog = {
    ...plane.catalog,
    getPoint: async () => ({ pointId: "p2", rootKey }),
    appendLog: async (_: string, { level, message }: { level: string; message: string }) =>
      void logged.push(`${level}: ${message}`),
  };
  const context = {
    catalog,
    clock,
    signal: new AbortController().signal,
    job,
  } as unknown as StageContext;
  const withParent = { ...job, previous: { pointId: "p2", anchors: [] } } as unknown as BackupJob;
  const find = async (its: typeof repository): Promise<string | undefined> =>
    previousRecord(context, await beginSession(its), its, withParent, "vda");

  expect(await find(repository)).toMatch(/^disks\//);
  expect(logged).toEqual([]);
  expect(await find(await openAt(yesterday, clock))).toBe(undefined);
  expect(logged).toEqual([expect.stringMatching(/^error: recovery point p2 .*set back/)]);

  // What a collection is about to remove is no alarm.
  const list = { madeAt: 1, packs: [], compacting: [], roots: [rootKey], objects: [] };
  await repository.sessions.condemned.put(list);
  expect(await find(repository)).toBe(undefined);
  expect(logged.slice(1)).toEqual([expect.stringMatching(/^warn: .*being removed/)]);
});
