import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  aBackupJob,
  anInventoryItem,
  aPoint,
  aRestoreJob,
} from "../../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../../test/helpers/control-plane.ts";
import { failureFromError } from "./failure-from-error.ts";
import { FinishEvent, finishJob } from "./finish-job.ts";

const record = { code: "host.no-space", message: "3 MiB left on /var", causes: ["ENOSPC"] };
const byMover = { Error: "HoldfastFailed", Cause: JSON.stringify(record) };

describe("the reason of a failed stage", () => {
  test.each([
    ["the mover's record", byMover, record],
    [
      "a function's record in Lambda's envelope",
      {
        Error: "HoldfastFailed",
        Cause: JSON.stringify({
          errorType: "HoldfastFailed",
          errorMessage: JSON.stringify(record),
          trace: [],
        }),
      },
      record,
    ],
    [
      "a function that crashed",
      {
        Error: "Lambda.Unknown",
        Cause: JSON.stringify({ errorType: "TypeError", errorMessage: "x is undefined" }),
      },
      { code: "internal", message: "Lambda.Unknown: x is undefined", causes: [] },
    ],
    [
      "no mover",
      { Error: "States.HeartbeatTimeout" },
      {
        code: "mover.lost",
        message: expect.stringContaining("no mover"),
        causes: [],
      },
    ],
    [
      "a code of a newer release",
      { Error: "HoldfastFailed", Cause: JSON.stringify({ code: "new.one", message: "m" }) },
      { code: "internal", message: "new.one: m", causes: [] },
    ],
    [
      "text that is no JSON",
      { Error: "States.Runtime", Cause: "{broken" },
      { code: "internal", message: "States.Runtime: {broken", causes: [] },
    ],
    [
      "cancelled without a record",
      { Error: "HoldfastCancelled", Cause: "" },
      { code: "cancelled", message: "HoldfastCancelled", causes: [] },
    ],
    [
      "nothing at all",
      {},
      { code: "internal", message: "the workflow gave no reason", causes: [] },
    ],
  ])("%s", (_name, error, expected) => {
    expect(failureFromError(error)).toEqual(expected);
  });
});

describe("finish-job", () => {
  let plane: ControlPlane;
  let vmId: string;
  beforeEach(async () => {
    plane = await openControlPlane();
    vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
    await plane.catalog.createJob(aBackupJob({ jobId: "a", vmId, state: "running" }));
    await plane.catalog.lockVm(vmId, "a");
  });
  afterEach(() => plane[Symbol.asyncDispose]());

  const finish = (event: Omit<FinishEvent, "jobId"> = {}) =>
    finishJob({ jobId: "a", ...event }, plane);
  const commit = async (warnings: readonly string[] = []) => {
    const point = aPoint({ vmId, jobId: "a", warnings: [...warnings] });
    await plane.catalog.commitPoint(point, { fence: 1, anchor: undefined });
    const record = await plane.catalog.claimTask("a", "write-recovery-point", "m");
    await plane.catalog.finishTask("a", record, { rootKey: point.rootKey, point });
  };

  test("a committed job succeeds, gives its VM back and is announced", async () => {
    await commit();
    expect(await finish()).toEqual({ state: "succeeded" });
    expect((await plane.catalog.getVm(vmId)).lock).toBeUndefined();
    expect(plane.events).toMatchObject([
      {
        type: "holdfast.job.finished",
        detail: { jobId: "a", state: "succeeded", vmId, pointId: "point-1" },
      },
    ]);
    expect((await plane.catalog.getJob("a")).endedAt).toBeDefined();
  });

  test("warnings of the point make it a success with warnings, each said once", async () => {
    await plane.catalog.updateJob("a", { warnings: ["w1"] });
    await commit(["w1", "w2"]);
    await finish();
    expect(await plane.catalog.getJob("a")).toMatchObject({
      state: "warnings",
      warnings: ["w1", "w2"],
    });
  });

  test("a clean-up that did not complete is a warning", async () => {
    await commit();
    await finish({ releaseError: byMover });
    expect(await plane.catalog.getJob("a")).toMatchObject({
      state: "warnings",
      warnings: ["clean-up is not complete: 3 MiB left on /var"],
    });
  });

  test("the first reason stays when the clean-up fails as well", async () => {
    await finish({ error: byMover, releaseError: { Error: "States.HeartbeatTimeout" } });
    expect(await plane.catalog.getJob("a")).toMatchObject({
      state: "failed",
      failure: record,
      warnings: [expect.stringContaining("clean-up is not complete")],
    });
    expect((await plane.catalog.getVm(vmId)).lock).toBeUndefined();
  });

  test("a point that is there is a success, whatever was reported after it", async () => {
    await commit();
    await finish({ error: { Error: "States.Timeout", Cause: "" } });
    expect(await plane.catalog.getJob("a")).toMatchObject({
      state: "warnings",
      pointId: "point-1",
      warnings: [expect.stringContaining("after the commit")],
    });
  });

  test("a restored VM that is there is a success, whatever was reported after it", async () => {
    await plane.catalog.createJob(aRestoreJob({ jobId: "r", state: "running" }));
    const record = await plane.catalog.claimTask("r", "finish-restore", "m");
    await plane.catalog.finishTask("r", record, { name: "web", externalId: "u", started: false });
    await finishJob({ jobId: "r", error: { Error: "ExecutionABORTED", Cause: "stopped" } }, plane);
    expect(await plane.catalog.getJob("r")).toMatchObject({
      state: "warnings",
      warnings: ["after the VM was restored: ExecutionABORTED: stopped"],
    });
  });

  test("a cancelled job is cancelled; one that failed for another reason is failed", async () => {
    await plane.catalog.requestCancel("a");
    const cancelled = { code: "cancelled", message: "stop", causes: [] };
    await finish({ error: { Error: "HoldfastCancelled", Cause: JSON.stringify(cancelled) } });
    expect((await plane.catalog.getJob("a")).state).toBe("cancelled");
    await plane.catalog.createJob(aRestoreJob({ jobId: "r", state: "cancelling" }));
    await finishJob({ jobId: "r", error: byMover }, plane);
    expect(await plane.catalog.getJob("r")).toMatchObject({ state: "failed", failure: record });
  });

  test("may be repeated: the outcome stays, another job's lock too, the event comes again", async () => {
    await finish({ error: byMover });
    await plane.catalog.lockVm(vmId, "next");
    expect(await finish()).toEqual({ state: "failed" });
    expect((await plane.catalog.getVm(vmId)).lock?.jobId).toBe("next");
    expect(plane.events).toHaveLength(2);
  });

  test("findings of a test that are not good are its warnings", async () => {
    await plane.catalog.createJob({
      kind: "inspect",
      mode: "test",
      jobId: "i",
      state: "queued",
      providerId: "kvm-1",
      siteId: "local",
      createdAt: "2026-11-20",
      warnings: [],
    });
    const finding = { check: "version", state: "warning", message: "old", remedy: "upgrade" };
    await plane.catalog.updateJob("i", { findings: [finding] });
    await finishJob({ jobId: "i" }, plane);
    expect(await plane.catalog.getJob("i")).toMatchObject({
      state: "warnings",
      warnings: ["version: old; upgrade"],
    });
  });

  test("takes the whole state of the workflow as its event", () => {
    expect(
      FinishEvent.parse({ jobId: "a", siteQueueUrl: "x", fence: 1, plan: {}, error: byMover }),
    ).toEqual({ jobId: "a", error: byMover });
  });
});
