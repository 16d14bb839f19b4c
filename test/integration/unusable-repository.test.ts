import { randomBytes } from "node:crypto";
import { cpSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import type { Job } from "@holdfast/shared/contracts/catalog-items";
import { failureKind, isFailureCode } from "@holdfast/shared/domain/failure";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

/** A repository that cannot be used ends the job at once, with what to do, and before the guest is touched. */
let installation: Installation;
const hypervisor = createMemoryHypervisor();
let calls: string[] = [];

beforeAll(async () => {
  installation = await startInstallation();
  installation.startMover(hypervisor.driver);
  hypervisor.addVm("web", { vda: new Uint8Array(randomBytes(1024 * 1024)) });
  await installation.addProvider("memory");
  hypervisor.hook = (call) => void calls.push(call);
});
afterAll(() => installation?.stop());
beforeEach(() => {
  calls = [];
});

async function backUpTo(repositoryId: string, url: string, passphrase: string): Promise<Job> {
  await installation.api.call("addRepository", { body: { repositoryId, url, passphrase } });
  const job = await installation.api.call("startBackup", { body: { vm: "web", repositoryId } });
  return installation.ended(job.jobId);
}

function expectRefused(job: Job, code: string, message: string | RegExp): void {
  expect(job).toMatchObject({
    state: "failed",
    failure: { code, message: expect.stringMatching(message) },
  });
  expect(isFailureCode(code) && failureKind(code).advice).toBeTruthy();
  expect(calls).toEqual([]);
  expect([...hypervisor.things]).toEqual([]);
  expect(JSON.stringify(job)).not.toContain("CANARY");
}

test("a wrong passphrase", async () => {
  const job = await backUpTo("wrong", installation.repositoryFolder, "CANARY wrong passphrase");
  expectRefused(job, "repository.key-wrong", "passphrase");
});

test("a newer format", async () => {
  const newer = `${installation.repositoryFolder}-newer`;
  cpSync(installation.repositoryFolder, newer, { recursive: true });
  const bytes = readFileSync(`${newer}/config`);
  bytes.writeUInt16LE(9, 8);
  writeFileSync(`${newer}/config`, bytes);
  const job = await backUpTo("newer", newer, installation.passphrase);
  expectRefused(job, "repository.format-unknown", "version 9");
});

test("a folder that is not there, as when its share is not mounted", async () => {
  const away = `${installation.repositoryFolder}-away`;
  const job = await backUpTo("away", away, installation.passphrase);
  expectRefused(job, "repository.not-found", away);
});

test("one that was broken is used again without a restart of the mover", async () => {
  const moved = `${installation.repositoryFolder}-moved`;
  const first = await backUpTo("moved", moved, installation.passphrase);
  expect(first.state).toBe("failed");
  cpSync(installation.repositoryFolder, `${moved}-copy`, { recursive: true });
  renameSync(`${moved}-copy`, moved);
  const job = await installation.api.call("startBackup", {
    body: { vm: "web", repositoryId: "moved" },
  });
  expect((await installation.ended(job.jobId)).failure).toBeUndefined();
});
