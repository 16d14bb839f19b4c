import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";

/** The control plane is gone with all that it knew; a new one, the bucket and the passphrase are there (docs/operations.md). */
const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const mebibyte = 1024 * 1024;
const folder = await mkdtemp(join(tmpdir(), "holdfast-import-"));
let installation: Installation | undefined;

afterEach(async () => {
  await installation?.stop();
  installation = undefined;
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(isRepositoryThere: boolean): Promise<Installation> {
  installation = await startInstallation({
    repositoryUrl: join(folder, "repository"),
    isRepositoryThere,
  });
  return installation;
}

/** The catalog's time of a commit is its own, a little after the repository's. */
async function pointsOf({ api }: Installation) {
  const { items } = await api.call("listPoints", { query: { vm: "web" } });
  return items.map(({ committedAt: _, ...point }) => point);
}

/** With `--json`. */
async function importMain({ api, tokenFile, passphrase }: Installation): Promise<unknown> {
  const words = [command, "repository", "import", "main", "--json"];
  const env = {
    PATH: process.env["PATH"],
    HOME: folder,
    HOLDFAST_ENDPOINT: api.endpoint,
    HOLDFAST_TOKEN_FILE: tokenFile,
    HOLDFAST_PASSPHRASE: passphrase,
  };
  const { stdout } = await promisify(execFile)(process.execPath, words, { env });
  return JSON.parse(stdout);
}

test("after the catalog is lost, an import lists all points again, they restore, and backups go on", async () => {
  const hypervisor = createMemoryHypervisor();
  const disks = { vda: new Uint8Array(3 * mebibyte), vdb: new Uint8Array(randomBytes(mebibyte)) };
  disks.vda.set(randomBytes(mebibyte), mebibyte);
  const vm = hypervisor.addVm("web", disks);
  hypervisor.addVm("left", { vda: new Uint8Array(randomBytes(mebibyte)) });

  const before = await start(false);
  const mover = before.startMover(hypervisor.driver);
  await before.addProvider("memory");
  const backUp = async (its: Installation, name: string): Promise<string> => {
    const { jobId } = await its.api.call("startBackup", { body: { vm: name } });
    const end = await its.ended(jobId);
    expect(end.failure).toBeUndefined();
    return jobId;
  };
  const first = await backUp(before, "web");
  const frozen = new Map(
    ["vda", "vdb"].map((key) => [key, hypervisor.frozen(first, key).slice()] as const),
  );
  hypervisor.write(vm, "vdb", 1000, randomBytes(1000));
  await backUp(before, "web");
  await backUp(before, "left");
  const points = await pointsOf(before);
  await mover.stop();
  await before.stop();

  const after = await start(true);
  after.startMover(hypervisor.driver);
  const counts = { points: 3, images: 0, unreadable: 0, different: 0 };
  expect(await importMain(after)).toMatchObject({ ...counts, added: 3, present: 0 });
  // Before any provider is known: the points are listed, under their VM's name.
  expect(await pointsOf(after)).toEqual(points);
  expect((await after.api.call("getVm", { id: "left" })).gone).toBe(true);

  await after.addProvider("memory");
  expect((await after.api.call("getVm", { id: "web" })).gone).toBe(false);
  const restore = await after.api.call("startRestore", {
    body: { pointId: first, name: "restored" },
  });
  expect((await after.ended(restore.jobId)).failure).toBeUndefined();
  const restored = [...hypervisor.vms.values()].find(({ name }) => name === "restored");
  expect(restored?.disks.map(({ key }) => key).toSorted()).toEqual(["vda", "vdb"]);
  for (const { key, bytes } of restored?.disks ?? []) {
    expect(Buffer.compare(bytes, frozen.get(key) ?? new Uint8Array()), key).toBe(0);
  }

  await backUp(after, "web");
  const now = await pointsOf(after);
  expect(now.length).toBe(3);
  expect(now.slice(1)).toEqual(points);
  expect(await importMain(after)).toMatchObject({ points: 4, added: 0, present: 4, different: 0 });
  expect(await pointsOf(after)).toEqual(now);
});
