import { randomBytes } from "node:crypto";
import type { Job } from "@holdfast/shared/contracts/catalog-items";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  type Installation,
  type RunningMover,
  startInstallation,
} from "../helpers/installation.ts";
import { createMemoryHypervisor, type MemoryVm } from "../helpers/memory-hypervisor.ts";

/**
 * The real workflow, functions, queue, mover and repository, on a hypervisor in memory:
 * what the workflow promises whatever the hypervisor is. The real libvirt is in test/systems.
 */
const mebibyte = 1024 * 1024;
let installation: Installation;
let mover: RunningMover;
const hypervisor = createMemoryHypervisor();
let vmCount = 0;

beforeAll(async () => {
  installation = await startInstallation();
  mover = installation.startMover(hypervisor.driver);
  await installation.addProvider("memory");
});
afterAll(async () => {
  await mover?.stop();
  await installation?.stop();
});
afterEach(() => {
  hypervisor.hook = () => undefined;
});

/** A VM of its own for each test: two disks, one larger than a leaf's range, with holes. */
async function newVm(): Promise<MemoryVm> {
  vmCount += 1;
  const large = new Uint8Array(66 * mebibyte);
  large.set(randomBytes(3 * mebibyte), 5 * mebibyte);
  large.set(randomBytes(2 * mebibyte), 63 * mebibyte);
  const small = new Uint8Array(randomBytes(mebibyte + 512 * 3));
  const vm = hypervisor.addVm(`vm-${vmCount}`, { vda: large, vdb: small });
  const job = await installation.api.call("syncProvider", { id: "memory" });
  expect((await installation.ended(job.jobId)).state).toBe("succeeded");
  return vm;
}

async function backup(vm: MemoryVm, full = false): Promise<Job> {
  const job = await installation.api.call("startBackup", { body: { vm: vm.name, full } });
  return installation.ended(job.jobId);
}

async function points(vm: MemoryVm) {
  return (await installation.api.call("listPoints", { query: { vm: vm.name } })).items;
}

async function restoredDisks(pointId: string): Promise<Map<string, Uint8Array>> {
  const name = `restored-${pointId}-${randomBytes(3).toString("hex")}`;
  const job = await installation.api.call("startRestore", { body: { pointId, name } });
  const end = await installation.ended(job.jobId);
  expect(end.failure).toBeUndefined();
  const vm = [...hypervisor.vms.values()].find((candidate) => candidate.name === name);
  return new Map(vm?.disks.map(({ key, bytes }) => [key, bytes]));
}

async function expectPoint(pointId: string, disks: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const restored = await restoredDisks(pointId);
  expect([...restored.keys()].sort()).toEqual([...disks.keys()].sort());
  for (const [key, bytes] of disks) {
    expect(Buffer.compare(restored.get(key) ?? new Uint8Array(), bytes), key).toBe(0);
  }
}

const frozen = (jobId: string): Map<string, Uint8Array> =>
  new Map(["vda", "vdb"].map((key) => [key, hypervisor.frozen(jobId, key).slice()]));

/** Only the kept snapshot of the VM's newest point may exist. */
async function expectNothingLeft(vm: MemoryVm): Promise<void> {
  const { vmId } = await installation.api.call("getVm", { id: vm.name });
  const { head, lock } = await installation.catalog.getVm(vmId);
  expect(lock).toBeUndefined();
  const kept = await installation.catalog.ledger({ vmId }).list();
  expect(kept.filter((entry) => !entry.kept)).toEqual([]);
  expect(kept.map(({ jobId }) => jobId)).toEqual(head === undefined ? [] : [head.jobId]);
  for (const thing of hypervisor.things) expect(thing).not.toMatch(/^restore /);
}

test("a full, an incremental and their restores are byte-identical, and nothing is left", async () => {
  const vm = await newVm();
  const first = await backup(vm);
  expect(first.failure).toBeUndefined();
  expect(first.state).toBe("succeeded");
  const firstDisks = frozen(first.jobId);

  hypervisor.write(vm, "vda", 5 * mebibyte + 100, randomBytes(200_000));
  hypervisor.write(vm, "vda", 63 * mebibyte, new Uint8Array(mebibyte));
  const second = await backup(vm);
  expect(second.state).toBe("succeeded");
  const secondDisks = frozen(second.jobId);

  const listed = await points(vm);
  expect(listed.map(({ mode }) => mode)).toEqual(["incremental", "full"]);
  const [newest] = listed;
  expect(newest?.disks.find(({ key }) => key === "vda")?.bytesRead).toBeLessThan(3 * mebibyte);
  await expectNothingLeft(vm);
  await expectPoint(first.jobId, firstDisks);
  await expectPoint(second.jobId, secondDisks);
});

test("a second backup of a VM is refused while one runs, naming the running job", async () => {
  const vm = await newVm();
  const gate = Promise.withResolvers<void>();
  hypervisor.hook = (call) => (call.startsWith("open vda") ? gate.promise : undefined);
  const running = await installation.api.call("startBackup", { body: { vm: vm.name } });
  await waitForStage(running.jobId, "transfer-disk");
  const refusal = await installation.api
    .call("startBackup", { body: { vm: vm.name } })
    .catch((error: unknown) => error);
  expect(isFailure(refusal, "busy")).toBe(true);
  expect(String(refusal)).toContain(running.jobId);
  gate.resolve();
  expect((await installation.ended(running.jobId)).state).toBe("succeeded");
});

test("a cancelled backup leaves nothing behind and the next one succeeds", async () => {
  const vm = await newVm();
  await backup(vm);
  hypervisor.hook = (call) =>
    call.startsWith("read") ? new Promise((resolve) => setTimeout(resolve, 300)) : undefined;
  const job = await installation.api.call("startBackup", { body: { vm: vm.name, full: true } });
  await waitForStage(job.jobId, "transfer-disk");
  await installation.api.call("cancelJob", { id: job.jobId });
  expect((await installation.ended(job.jobId)).state).toBe("cancelled");
  hypervisor.hook = () => undefined;
  await expectNothingLeft(vm);
  expect(await points(vm)).toHaveLength(1);
  expect((await backup(vm)).state).toBe("succeeded");
});

test("whichever hypervisor call fails, the job says so, nothing is left, and the next backup is right", async () => {
  const vm = await newVm();
  await backup(vm);
  const calls = ["snapshot", "snapshot taken", "metadata", "open vda", "read vdb"];
  for (const failing of calls) {
    hypervisor.write(vm, "vda", 5 * mebibyte, randomBytes(100_000));
    hypervisor.hook = (call) => {
      if (call === failing) {
        throw new Failure("vm.unsupported", { message: `planted failure in ${failing}` });
      }
    };
    const failed = await backup(vm, true);
    expect(failed.state, failing).toBe("failed");
    expect(failed.failure?.message).toContain(`planted failure in ${failing}`);
    hypervisor.hook = () => undefined;
    await expectNothingLeft(vm);
    const next = await backup(vm);
    expect(next.failure, failing).toBeUndefined();
    await expectPoint(next.jobId, frozen(next.jobId));
  }
});

test("a passing failure is tried again and the job succeeds", async () => {
  const vm = await newVm();
  let failures = 1;
  hypervisor.hook = (call) => {
    if (call === "open vdb" && failures-- > 0) {
      throw new Failure("network.unreachable", { message: "planted outage" });
    }
  };
  const job = await backup(vm);
  expect(job.state).toBe("succeeded");
  const { log } = await installation.api.call("getJob", { id: job.jobId });
  expect(log.map(({ message }) => message).join("\n")).toContain("planted outage");
});

test("change tracking that forgets a block is found by the sample and the disk is read in full", async () => {
  const vm = await newVm();
  await backup(vm);
  const vda = vm.disks.find(({ key }) => key === "vda");
  // Written behind the tracker's back.
  vda?.bytes.set(randomBytes(64 * 1024), 5 * mebibyte);
  const job = await installation.api.call("startBackup", {
    body: { vm: vm.name, options: { sampleShare: 1 } },
  });
  const end = await installation.ended(job.jobId);
  expect(end.state).toBe("warnings");
  await expectPoint(job.jobId, frozen(job.jobId));
  const { log } = await installation.api.call("getJob", { id: job.jobId });
  expect(log.some(({ message }) => message.startsWith("ALARM"))).toBe(true);
});

test("a local stack killed in the middle of a job loses no job", async () => {
  const vm = await newVm();
  const gate = Promise.withResolvers<void>();
  hypervisor.hook = (call) => (call === "open vda" ? gate.promise : undefined);
  const job = await installation.api.call("startBackup", { body: { vm: vm.name } });
  await waitForStage(job.jobId, "transfer-disk");
  await installation.killAndRestartStack();
  gate.resolve();
  const end = await installation.ended(job.jobId);
  expect(end.state).toBe("succeeded");
  await expectPoint(job.jobId, frozen(job.jobId));
  await expectNothingLeft(vm);
});

test("a restore to a taken name is refused and leaves nothing", async () => {
  const vm = await newVm();
  const { jobId } = await backup(vm);
  const job = await installation.api.call("startRestore", {
    body: { pointId: jobId, name: vm.name },
  });
  const end = await installation.ended(job.jobId);
  expect(end.failure?.code).toBe("target.refused");
  await expectNothingLeft(vm);
});

async function waitForStage(jobId: string, stage: string): Promise<void> {
  for (;;) {
    const { job } = await installation.api.call("getJob", { id: jobId });
    if (job.stage === stage) return;
    if (job.endedAt !== undefined) throw new Error(`job ended: ${job.failure?.message}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
