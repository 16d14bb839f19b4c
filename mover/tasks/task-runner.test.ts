import type { FailureRecord } from "@holdfast/shared/domain/failure";
import type { TaskAnswers, TaskQueue } from "@holdfast/shared/ports/task-queue";
import { afterEach, beforeEach, expect, test } from "vitest";
import { aBackupJob, anInventoryItem } from "../../test/helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../../test/helpers/control-plane.ts";
import { runTask, type TaskRunnerOptions, tendTask } from "./task-runner.ts";

let plane: ControlPlane;
let calls: string[];
let isWaitedFor: boolean;
beforeEach(async () => {
  plane = await openControlPlane();
  calls = [];
  isWaitedFor = true;
  const vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
  await plane.catalog.createJob(aBackupJob({ jobId: "a", vmId, state: "running" }));
});
afterEach(() => plane[Symbol.asyncDispose]());

const queue: TaskQueue = {
  receive: async () => undefined,
  extend: async (_receipt, seconds) => void calls.push(`extend ${seconds}`),
  remove: async () => void calls.push("remove"),
};
const answers: TaskAnswers = {
  heartbeat: async () => {
    calls.push("heartbeat");
    return isWaitedFor;
  },
  succeed: async () => void calls.push("succeed"),
  fail: async (_token, { error, record }: { error: string; record: FailureRecord }) =>
    void calls.push(`fail ${error} ${record.message}`),
};
const options = (): TaskRunnerOptions => ({
  services: {
    catalog: plane.catalog,
    clock: plane.clock,
    workers: undefined,
    openDriver: () => Promise.reject(new Error("not needed")),
    openRepository: () => Promise.reject(new Error("not needed")),
  },
  queue,
  answers,
  moverId: "m",
  heartbeatMs: 3_600_000,
  visibilitySeconds: 45,
  logger: plane.logger,
});
const received = (task: object) => ({
  messageId: "1",
  receipt: "r",
  body: JSON.stringify({ v: 1, taskToken: "t", jobId: "a", task }),
});
const snapshot = received({ kind: "snapshot" });

test("a task that waits for a place is spoken of and goes back into the queue", async () => {
  await tendTask(snapshot, options());
  expect(calls).toEqual(["heartbeat", "extend 15"]);
});

test("a task that nobody waits for any more is removed", async () => {
  isWaitedFor = false;
  await tendTask(snapshot, options());
  expect(calls).toEqual(["heartbeat", "remove"]);
});

test("a waiting task of a cancelled job is answered at once; its release waits on", async () => {
  await plane.catalog.requestCancel("a");
  await tendTask(snapshot, options());
  expect(calls).toEqual(["heartbeat", "fail HoldfastCancelled the job was cancelled", "remove"]);
  calls = [];
  await tendTask(received({ kind: "release", outcome: "failed" }), options());
  expect(calls).toEqual(["heartbeat", "extend 15"]);
});

test("a task that was begun again and again and never ended is given up", async () => {
  for (let claim = 1; claim <= 30; claim += 1) await plane.catalog.claimTask("a", "snapshot", "m");
  const { catalog } = plane;
  // Heartbeats sleep until the task ends.
  const clock = { ...plane.clock, sleep: waitFor };
  const base = options();
  await runTask(
    snapshot,
    { ...base, services: { ...base.services, catalog, clock } },
    new AbortController().signal,
  );
  expect(calls.at(-2)).toMatch(/^fail HoldfastFailed snapshot was begun 30 times/);
  expect(calls.at(-1)).toBe("remove");
});

function waitFor(_delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((_resolve, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
