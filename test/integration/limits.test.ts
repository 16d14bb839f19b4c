import { randomBytes } from "node:crypto";
import { type Clock, systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLimitBook } from "../../mover/limits/limit-book.ts";
import { createOwnLimits } from "../../mover/limits/own-limits.ts";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

const mebibyte = 1024 ** 2;
let installation: Installation;
beforeAll(async () => {
  installation = await startInstallation();
});
afterAll(() => installation.stop());

/** Long sleeps are short: a mover looks after its limits many times a second. */
const hurried: Clock = {
  now: systemClock.now,
  sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 25), signal),
};

test("limits that are changed by the API hold for jobs that run already, both ways", async () => {
  const { api, catalog } = installation;
  const own = createOwnLimits(hurried);
  await using limits = createLimitBook({ catalog, own, clock: hurried, logger: silentLogger });
  const hypervisor = createMemoryHypervisor();
  const mover = installation.startMover(hypervisor.driver, { limits });
  await installation.addProvider("memory");
  const vm = hypervisor.addVm("limited", { vda: Uint8Array.from(randomBytes(4 * mebibyte)) });
  await installation.ended((await api.call("syncProvider", { id: "memory" })).jobId);

  /** A job whose transfer waits before its first read; the repository is open by then. */
  async function startHeld() {
    const reached = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    hypervisor.hook = (call) => {
      if (!call.startsWith("open vda")) return undefined;
      reached.resolve();
      return go.promise;
    };
    const { jobId } = await api.call("startBackup", { body: { vm: vm.name } });
    await reached.promise;
    return { jobId, go: go.resolve };
  }
  const limitOf = async () => limits.repository(await catalog.getRepository("main")).upload.at(-1);
  async function change(writeBytesPerSecond: number | undefined): Promise<void> {
    const body = writeBytesPerSecond === undefined ? {} : { writeBytesPerSecond };
    await api.call("limitRepository", { id: "main", body });
  }

  const refused = await startHeld();
  const limit = await limitOf();
  expect(limit?.rate()).toBe("off");
  await change(0);
  await expect.poll(() => limit?.rate(), { timeout: 60_000 }).toBe(0);
  refused.go();
  expect((await installation.ended(refused.jobId)).failure?.code).toBe("limit.zero");

  // A byte a second, and a mebibyte has passed already: nothing more for twelve days, if the limit stayed.
  await change(1);
  await expect.poll(() => limit?.rate(), { timeout: 60_000 }).toBe(1);
  await limit?.take(mebibyte);
  const slow = await api.call("startBackup", { body: { vm: vm.name } });
  await expect
    .poll(async () => (await api.call("getJob", { id: slow.jobId })).job.state, { timeout: 60_000 })
    .toBe("running");
  await change(undefined);
  const { state, failure } = await installation.ended(slow.jobId);
  expect(failure).toBeUndefined();
  expect(state).toBe("succeeded");
  await mover.stop();
});
