import { afterEach, beforeEach, expect, test } from "vitest";
import { aBackupJob, anInventoryItem } from "../../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../../test/helpers/control-plane.ts";
import { recoverFromEvent, StatusChange } from "./recover-job.ts";

const backupArn = "arn:aws:states:eu-central-1:1:stateMachine:holdfast-backup";

let plane: ControlPlane;
beforeEach(async () => {
  plane = await openControlPlane();
  const vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
  await plane.catalog.createJob(aBackupJob({ jobId: "a", vmId, state: "running" }));
});
afterEach(() => plane[Symbol.asyncDispose]());

/** As AWS documents the event, with what is none of ours left in. */
const event = (detail: Partial<StatusChange["detail"]> = {}) =>
  StatusChange.parse({
    version: "0",
    id: "315c1398-40ff-a850-213b-158f73e60175",
    "detail-type": "Step Functions Execution Status Change",
    source: "aws.states",
    detail: {
      executionArn: "arn:aws:states:eu-central-1:1:execution:holdfast-backup:a",
      stateMachineArn: backupArn,
      name: "a",
      status: "ABORTED",
      startDate: 1551225271984,
      stopDate: 1551225300000,
      input: "{}",
      inputDetails: { included: true },
      output: null,
      outputDetails: null,
      error: null,
      cause: null,
      ...detail,
    },
  });

const recover = (change: StatusChange) =>
  recoverFromEvent(change, { ...plane, jobStateMachineArns: [backupArn] });

test.each([
  [{ status: "ABORTED" }, "ExecutionABORTED"],
  [{ status: "TIMED_OUT" }, "States.Timeout"],
  [{ status: "FAILED", error: "States.Runtime", cause: "too large" }, "States.Runtime"],
  [{ status: "SUCCEEDED" }, "ExecutionSUCCEEDED"],
])("an execution that ended without ending its job: %j", async (detail, reason) => {
  expect(await recover(event(detail))).toEqual({ recovered: true });
  expect(await recover(event(detail))).toEqual({ recovered: true });
  expect([...plane.workflows.recovering]).toEqual([
    [
      "a",
      {
        jobId: "a",
        siteQueueUrl: "http://queue/holdfast-local",
        error: { Error: reason, Cause: expect.stringMatching(/./) },
      },
    ],
  ]);
});

test("a job that has ended, a running execution, and executions that are none of ours are left alone", async () => {
  for (const detail of [
    { status: "RUNNING" },
    { name: "another" },
    { stateMachineArn: "arn:aws:states:eu-central-1:1:stateMachine:foreign" },
  ]) {
    expect(await recover(event(detail))).toEqual({ recovered: false });
  }
  await plane.catalog.updateJob("a", { state: "failed" });
  expect(await recover(event())).toEqual({ recovered: false });
  expect(plane.workflows.recovering.size).toBe(0);
});
