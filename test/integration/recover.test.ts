import { randomBytes } from "node:crypto";
import { SFNClient, StopExecutionCommand } from "@aws-sdk/client-sfn";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  type Installation,
  type RunningMover,
  startInstallation,
} from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

/** Executions that end without their last states: nothing stays on the hypervisor, the job says why, the VM is free. */
const mebibyte = 1024 * 1024;
let installation: Installation;
let mover: RunningMover;
const hypervisor = createMemoryHypervisor();

beforeAll(async () => {
  installation = await startInstallation();
  mover = installation.startMover(hypervisor.driver);
  for (const name of ["stopped", "restored"]) {
    hypervisor.addVm(name, { vda: new Uint8Array(randomBytes(2 * mebibyte)) });
  }
  await installation.addProvider("memory");
});
afterAll(async () => {
  await mover?.stop();
  await installation?.stop();
});
afterEach(() => {
  hypervisor.hook = () => undefined;
});

/** Stops the execution while the driver is at `call`, and lets that call go on only then. */
async function stopDuring(
  call: string,
  kind: "backup" | "restore",
  start: () => Promise<{ readonly jobId: string }>,
): Promise<string> {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  hypervisor.hook = (now) => {
    if (!now.startsWith(call)) return undefined;
    reached.resolve();
    return gate.promise;
  };
  const { jobId } = await start();
  await reached.promise;
  const machine = process.env[`${kind.toUpperCase()}_STATE_MACHINE_ARN`] ?? "";
  const executionArn = `${machine.replace(":stateMachine:", ":execution:")}:${jobId}`;
  await new SFNClient().send(
    new StopExecutionCommand({ executionArn, error: "Operator", cause: "stopped by hand" }),
  );
  gate.resolve();
  return jobId;
}

const startBackup = (vm: string) => () => installation.api.call("startBackup", { body: { vm } });

test("a backup whose execution is stopped is cleaned up, ended with the reason, and the VM is free", async () => {
  const jobId = await stopDuring("open vda", "backup", startBackup("stopped"));
  const busy = await startBackup("stopped")().catch((error: unknown) => error);
  expect(busy).toMatchObject({ code: "busy", message: expect.stringContaining(jobId) });
  const job = await installation.ended(jobId);
  expect(job).toMatchObject({
    state: "failed",
    failure: { message: "Operator: stopped by hand" },
  });
  expect([...hypervisor.things]).toEqual([]);
  const { vmId } = await installation.api.call("getVm", { id: "stopped" });
  expect(await installation.catalog.ledger({ vmId }).list()).toEqual([]);
  expect((await installation.catalog.getVm(vmId)).lock).toBeUndefined();
  hypervisor.hook = () => undefined;
  const next = await startBackup("stopped")();
  expect((await installation.ended(next.jobId)).state).toBe("succeeded");
}, 120_000);

test("a restore whose execution is stopped leaves no half-made VM", async () => {
  const { jobId: backup } = await startBackup("restored")();
  expect((await installation.ended(backup)).state).toBe("succeeded");
  const { items } = await installation.api.call("listPoints", { query: { vm: "restored" } });
  const pointId = items[0]?.pointId ?? "";
  const before = [...hypervisor.things];
  const jobId = await stopDuring("write", "restore", () =>
    installation.api.call("startRestore", { body: { pointId, name: "half" } }),
  );
  const job = await installation.ended(jobId);
  expect(job).toMatchObject({ state: "failed", failure: { message: "Operator: stopped by hand" } });
  expect([...hypervisor.things]).toEqual(before);
  expect([...hypervisor.vms.values()].map(({ name }) => name)).not.toContain("half");
  const left = await installation.catalog.ledger({ restoreJobId: jobId }).list();
  expect(left).toEqual([]);
}, 120_000);
