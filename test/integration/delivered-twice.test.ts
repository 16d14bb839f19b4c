import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

/** SQS delivers at least once, and a slow mover's message is given to another: one job, one snapshot, one point. */
const mebibyte = 1024 * 1024;
let installation: Installation;
const hypervisor = createMemoryHypervisor();

beforeAll(async () => {
  installation = await startInstallation();
  hypervisor.addVm("twice", { vda: new Uint8Array(randomBytes(3 * mebibyte)) });
  hypervisor.addVm("slow", { vda: new Uint8Array(randomBytes(3 * mebibyte)) });
});
afterAll(() => installation?.stop());

async function expectOnePoint(name: string, jobId: string): Promise<void> {
  const { items } = await installation.api.call("listPoints", { query: { vm: name } });
  expect(items.map((point) => point.jobId)).toEqual([jobId]);
  const { vmId } = await installation.api.call("getVm", { id: name });
  const entries = await installation.catalog.ledger({ vmId }).list();
  expect(entries.map((entry) => [entry.jobId, entry.kept])).toEqual([[jobId, true]]);
}

test("every message three times at once: one point, nothing left", async () => {
  const mover = installation.startMover(hypervisor.driver, { deliveries: 3 });
  await installation.addProvider("memory");
  const { jobId } = await installation.api.call("startBackup", { body: { vm: "twice" } });
  const job = await installation.ended(jobId);
  await mover.stop();
  expect(job.failure).toBeUndefined();
  await expectOnePoint("twice", jobId);
});

test("a mover that loses its message while it works gives way to the second one", async () => {
  const gate = Promise.withResolvers<void>();
  let opened = 0;
  hypervisor.hook = (call) => {
    if (call !== "open vda") return undefined;
    opened += 1;
    // The first mover hangs, the second goes on.
    return opened === 1 ? gate.promise : undefined;
  };
  const silent = installation.startMover(hypervisor.driver, {
    heartbeatMs: 3_600_000,
    visibilitySeconds: 2,
  });
  const { jobId } = await installation.api.call("startBackup", { body: { vm: "slow" } });
  while (opened === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const second = installation.startMover(hypervisor.driver);
  const job = await installation.ended(jobId);
  gate.resolve();
  await silent.stop();
  await second.stop();
  expect(job.failure).toBeUndefined();
  await expectOnePoint("slow", jobId);
});

test("a mover that wakes up after it was replaced cleans up nothing of its successor's", async () => {
  hypervisor.addVm("asleep", { vda: new Uint8Array(randomBytes(mebibyte)) });
  const gate = Promise.withResolvers<void>();
  let taken = 0;
  hypervisor.hook = (call) => {
    if (call !== "snapshot taken") return undefined;
    taken += 1;
    return taken === 1 ? gate.promise.then(() => Promise.reject(new Error("woken"))) : undefined;
  };
  const sleeping = installation.startMover(hypervisor.driver, {
    heartbeatMs: 3_600_000,
    visibilitySeconds: 2,
  });
  const sync = await installation.api.call("syncProvider", { id: "memory" });
  await installation.ended(sync.jobId);
  const { jobId } = await installation.api.call("startBackup", { body: { vm: "asleep" } });
  while (taken === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  let woken = false;
  const inner = hypervisor.hook;
  hypervisor.hook = (call) => {
    if (call === "open vda" && !woken) {
      // The successor reads; now the first mover fails and wants to clean up.
      woken = true;
      gate.resolve();
    }
    return inner(call);
  };
  const second = installation.startMover(hypervisor.driver);
  const job = await installation.ended(jobId);
  await sleeping.stop();
  await second.stop();
  expect(job.failure).toBeUndefined();
  await expectOnePoint("asleep", jobId);
  expect(hypervisor.things).toContain(`snapshot ${jobId}`);
});
