import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { CollectReport } from "@holdfast/shared/contracts/standalone";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

/** Retention takes points off the catalog's list; `repository gc NAME` removes from the repository what only they needed. */
const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const mebibyte = 1024 * 1024;
const hypervisor = createMemoryHypervisor();
let installation: Installation;

beforeAll(async () => {
  installation = await startInstallation();
  installation.startMover(hypervisor.driver);
});
afterAll(() => installation?.stop());

async function backUp(): Promise<string> {
  const { api } = installation;
  const { jobId } = await api.call("startBackup", { body: { vm: "web", policyId: "one" } });
  expect((await installation.ended(jobId)).failure).toBeUndefined();
  return jobId;
}

async function collect(...options: readonly string[]): Promise<CollectReport> {
  const words = [command, "repository", "gc", "main", "--json", ...options];
  const env = {
    PATH: process.env["PATH"],
    HOME: installation.repositoryFolder,
    HOLDFAST_ENDPOINT: installation.api.endpoint,
    HOLDFAST_TOKEN_FILE: installation.tokenFile,
    HOLDFAST_PASSPHRASE: installation.passphrase,
  };
  const { stdout } = await promisify(execFile)(process.execPath, words, { env });
  const last: unknown = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  if (typeof last !== "object" || last === null || !("result" in last)) throw new Error(stdout);
  return last.result as CollectReport;
}

async function expired(): Promise<readonly string[]> {
  const { items } = await installation.api.call("listExpired", { id: "main" });
  return items.map(({ pointId }) => pointId);
}

async function stored(folder: string): Promise<readonly string[]> {
  const path = join(installation.repositoryFolder, folder);
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
}

test("what a policy no longer keeps leaves the repository with the next collection, and nothing else does", async () => {
  const { api } = installation;
  const vm = hypervisor.addVm("web", {
    vda: new Uint8Array(randomBytes(4 * mebibyte)),
    vdb: new Uint8Array(randomBytes(mebibyte)),
  });
  await installation.addProvider("memory");
  const selection = { namePattern: "web" };
  await api.call("addPolicy", {
    body: { policyId: "one", repositoryId: "main", selection, retention: { last: 1 } },
  });
  const first = await backUp();
  expect(await expired()).toEqual([]);
  const before = { roots: await stored("points"), packs: await stored("packs") };
  // All of what the first backup has of this disk.
  hypervisor.write(vm, "vdb", 0, randomBytes(mebibyte));
  const second = await backUp();
  // What a running job builds on is kept: the first point goes with the third.
  expect(await expired()).toEqual([]);
  await backUp();
  expect(await expired()).toEqual([first]);

  const { points } = await collect("--dry-run");
  expect(points.expired).toEqual(before.roots.map((name) => expect.stringContaining(name)));
  expect(await expired()).toEqual([first]);

  const report = await collect();
  expect(report).toMatchObject({ state: "done", points: { kept: 2 }, missingPacks: [] });
  expect(await stored("points")).not.toEqual(expect.arrayContaining([...before.roots]));
  const left = new Set(await stored("packs"));
  const freed = before.packs.filter((name) => !left.has(name));
  expect(freed.length).toBeGreaterThan(0);
  expect(freed.length).toBeLessThan(before.packs.length);
  expect(await expired()).toEqual([]);

  const frozen = hypervisor.frozen(second, "vdb").slice();
  const restore = await api.call("startRestore", { body: { pointId: second, name: "restored" } });
  expect((await installation.ended(restore.jobId)).failure).toBeUndefined();
  const restored = [...hypervisor.vms.values()].find(({ name }) => name === "restored");
  const disk = restored?.disks.find(({ key }) => key === "vdb")?.bytes ?? new Uint8Array();
  expect(Buffer.compare(disk, frozen)).toBe(0);
  expect(await collect()).toMatchObject({ points: { expired: [], kept: 2 } });
});
