import { afterEach, beforeEach, expect, test } from "vitest";
import {
  anInventoryItem,
  aPolicy,
  aProvider,
  aRepository,
} from "../../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../../test/helpers/control-plane.ts";
import { dispatch } from "./dispatch.ts";

const time = "2026-11-20T02:00:00Z";

let plane: ControlPlane;
beforeEach(async () => {
  plane = await openControlPlane();
  await plane.catalog.putProvider(aProvider(), { create: true });
  await plane.catalog.putRepository(aRepository());
  await plane.catalog.putPolicy(aPolicy({ selection: { tags: ["prod"] } }));
  for (const name of ["a", "b", "c"]) {
    await plane.catalog.upsertVm("kvm-1", anInventoryItem(name, name, ["prod"]), "2026-11-20");
  }
  await plane.catalog.upsertVm("kvm-1", anInventoryItem("test"), "2026-11-20");
});
afterEach(() => plane[Symbol.asyncDispose]());

test("starts one backup for each VM; the same planned time again starts nothing more", async () => {
  const first = await dispatch({ policyId: "nightly", time }, plane);
  expect(first.jobIds).toHaveLength(3);
  const [again, late] = await Promise.all([
    dispatch({ policyId: "nightly", time }, plane),
    dispatch({ policyId: "nightly", time: "2026-11-20T02:00:00.000Z" }, plane),
  ]);
  expect(again).toEqual(first);
  expect(late).toEqual(first);
  expect(plane.workflows.started.size).toBe(3);
  const jobs = await plane.catalog.listJobs({ limit: 10 });
  expect(jobs.map((job) => job.kind === "backup" && job.policyId)).toEqual(
    Array.from({ length: 3 }, () => "nightly"),
  );
});

test("VMs still held by the last run are skipped and logged; the others start", async () => {
  const first = await dispatch({ policyId: "nightly", time }, plane);
  const [held, ...done] = first.jobIds;
  for (const jobId of done) {
    const job = await plane.catalog.getJob(jobId);
    await plane.catalog.updateJob(jobId, { state: "succeeded" });
    if (job.kind === "backup") await plane.catalog.unlockVm(job.vmId, jobId);
  }
  const next = await dispatch({ policyId: "nightly", time: "2026-11-21T02:00:00Z" }, plane);
  expect(next).toMatchObject({ skipped: 1 });
  expect(next.jobIds).toHaveLength(2);
  expect(plane.logLines.join("\n")).toContain(held);
  expect(await plane.catalog.listJobs({ limit: 10 })).toHaveLength(5);
});

test("VMs that are gone are skipped", async () => {
  await plane.catalog.markGone("kvm-1", "2027-01-01");
  expect(await dispatch({ policyId: "nightly" }, plane)).toEqual({ jobIds: [], skipped: 3 });
});

test("job ids sort by the planned time", async () => {
  const { jobIds } = await dispatch({ policyId: "nightly", time }, plane);
  const prefix = Date.parse(time).toString(36).padStart(9, "0");
  for (const jobId of jobIds) expect(jobId).toMatch(new RegExp(`^${prefix}-[0-9a-f]{24}$`));
});

test("a policy that was removed fails", async () => {
  await expect(dispatch({ policyId: "none", time }, plane)).rejects.toThrow("none");
});
