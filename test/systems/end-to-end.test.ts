import { randomFillSync } from "node:crypto";
import { copyFile, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { BackupOverrides } from "@holdfast/shared/contracts/api";
import type { Job } from "@holdfast/shared/contracts/catalog-items";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { findGuest, type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import { type Bench, leftovers, startBench } from "../testbeds/libvirt-bench.ts";
import { run } from "../testbeds/run.ts";

/**
 * The whole of it on real parts: local stack, mover process, SSH, libvirt, a guest that keeps writing. What dies here
 * is really killed; what a point must hold is copied by libvirt's own tools at the moment of the snapshot.
 */
const mebibyte = 1024 * 1024;
const randomDiskMebibytes = 640;
let bench: Bench;
let guest: Guest;
let installation: Installation;
let folder: string;

beforeAll(async () => {
  bench = await startBench();
  folder = await mkdtemp("/var/tmp/holdfast-end-to-end-");
  await run("chmod", ["711", folder]);
  const disks = [
    { target: "vda", format: "qcow2", mebibytes: 64 },
    { target: "vdb", format: "raw", mebibytes: randomDiskMebibytes },
  ] as const;
  guest = await startGuest(bench.host, "hf-whole", { disks, start: false });
  await fillWithNoise(join(bench.host.images, "hf-whole-vdb.raw"));
  await guest.start();
  installation = await startInstallation({
    mover: { HEARTBEAT_SECONDS: "1", VISIBILITY_SECONDS: "4", DRAIN_SECONDS: "0.2" },
  });
  await installation.addProvider("kvm", {
    secret: bench.host.address.login.privateKey,
    settings: {
      kind: "libvirt",
      ssh: {
        host: bench.host.address.host,
        port: bench.host.address.port,
        user: bench.host.address.user,
        hostKeys: [...bench.host.address.hostKeys],
        login: "key",
      },
    },
  });
});
afterAll(async () => {
  await installation?.stop();
  await guest?.remove();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

/** No file system: the guest leaves it alone, and it takes a while to transfer. */
async function fillWithNoise(file: string): Promise<void> {
  const handle = await open(file, "r+");
  const block = Buffer.alloc(mebibyte);
  for (let index = 0; index < randomDiskMebibytes; index++) {
    await handle.write(randomFillSync(block), 0, mebibyte, index * mebibyte);
  }
  await handle.close();
}

async function startBackup(options: BackupOverrides = {}): Promise<string> {
  const job = await installation.api.call("startBackup", {
    body: {
      vm: "hf-whole",
      options: { incremental: false, scratchBytesMin: 16 * mebibyte, ...options },
    },
  });
  return job.jobId;
}

async function expectSuccess(jobId: string): Promise<Job> {
  const job = await installation.ended(jobId);
  const { log } = await installation.api.call("getJob", { id: jobId });
  const lines = log.map(({ message }) => message).join("\n");
  expect(job.failure, `${lines}\n${await installation.moverLog()}`).toBeUndefined();
  return job;
}

async function untilTransferring(jobId: string, bytesMin: number): Promise<void> {
  for (;;) {
    const { job, progress } = await installation.api.call("getJob", { id: jobId });
    if (job.endedAt !== undefined) throw new Error(`job ended early: ${job.failure?.message}`);
    const disk = progress.find(({ diskKey }) => diskKey === "vdb");
    if (disk !== undefined && disk.bytesDone >= bytesMin) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function killMover(signal: NodeJS.Signals): Promise<void> {
  const { mover } = await installation.processes();
  expect(mover).toBeGreaterThan(0);
  process.kill(mover, signal);
}

/** A post command that copies the frozen disks by libvirt's own tools. */
async function witness(name: string): Promise<{ folder: string; options: BackupOverrides }> {
  const script = join(folder, "witness.sh");
  await copyFile(join(import.meta.dirname, "../demo/witness.sh"), script);
  const target = join(folder, name);
  await run("mkdir", [target]);
  await run("chmod", ["755", script]);
  const command = [script, "hf-whole", target];
  return {
    folder: target,
    options: {
      postCommands: [{ where: "host", command, timeoutSeconds: 300, onFailure: "fail" }],
    },
  };
}

async function expectRestored(pointId: string, frozen: string): Promise<void> {
  const name = `hf-restored-${pointId.slice(-6)}`;
  const job = await installation.api.call("startRestore", { body: { pointId, name } });
  await expectSuccess(job.jobId);
  const restored = await findGuest(bench.host, name);
  try {
    const xml = await bench.host.virsh("dumpxml", name, "--inactive");
    for (const [, source = "", disk = ""] of xml.matchAll(
      /<source file='([^']+)'[^>]*>[\s\S]*?<target dev='(vd[ab])'/g,
    )) {
      const raw = join(folder, `${disk}.restored`);
      const format = disk === "vda" ? "qcow2" : "raw";
      await run("qemu-img", ["convert", "-f", format, "-O", "raw", source, raw]);
      await run("cmp", [raw, join(frozen, `${disk}.raw`)]);
      await rm(raw);
    }
  } finally {
    await restored.remove();
    for (const file of await readdir(bench.host.images)) {
      if (file.startsWith(name)) await rm(join(bench.host.images, file));
    }
  }
}

test.each(["ssh-snapshot", "checkpoint"] as const)(
  "R44: a mover killed -9 in mid-transfer is replaced, and the transfer goes on from its checkpoint (%s)",
  async (strategy) => {
    const frozen = await witness(`killed-${strategy}`);
    const jobId = await startBackup({ ...frozen.options, strategy });
    for (const mebibytes of [20, 300, 420]) {
      await untilTransferring(jobId, mebibytes * mebibyte);
      await killMover("SIGKILL");
    }
    await expectSuccess(jobId);
    const { log } = await installation.api.call("getJob", { id: jobId });
    expect(log.some(({ message }) => message.includes("going on from the last checkpoint"))).toBe(
      true,
    );
    await expectRestored(jobId, join(frozen.folder, "0"));
  },
);

test("R44: a mover that is told to stop hands its transfer back", async () => {
  const frozen = await witness("terminated");
  const jobId = await startBackup(frozen.options);
  await untilTransferring(jobId, 20 * mebibyte);
  await killMover("SIGTERM");
  await expectSuccess(jobId);
  await expectRestored(jobId, join(frozen.folder, "0"));
});

test("a mover killed around the snapshot leaves no frozen guest and no snapshot", async () => {
  const jobId = await startBackup({ quiesce: "try" });
  for (;;) {
    const { job } = await installation.api.call("getJob", { id: jobId });
    if (job.stage === "snapshot" || job.endedAt !== undefined) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await new Promise((resolve) => setTimeout(resolve, 700));
  await killMover("SIGKILL");
  await expectSuccess(jobId);
  // The guest goes on writing.
  const before = Number(await guest.execute("cat /mnt/vda/counter"));
  for (;;) {
    if (Number(await guest.execute("cat /mnt/vda/counter")) > before) break;
  }
});

test("libvirtd restarts in mid-backup: the job succeeds or ends with its clean-up done", async () => {
  const jobId = await startBackup({ strategy: "checkpoint" });
  await untilTransferring(jobId, 20 * mebibyte);
  await bench.host.restartLibvirtd();
  await expectSuccess(jobId);
});

test("a cancelled backup is cleaned up on the host", async () => {
  const jobId = await startBackup({ strategy: "checkpoint" });
  await untilTransferring(jobId, 20 * mebibyte);
  await installation.api.call("cancelJob", { id: jobId });
  expect((await installation.ended(jobId)).state).toBe("cancelled");
});

test("a wrong host key and a wrong key are refused with what to do", async () => {
  const { host, port, user } = bench.host.address;
  const common = { host, port, user, login: "key" as const };
  const foreign =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh";
  const providers = [
    { providerId: "bad-host-key", hostKeys: [foreign], code: "host.key-changed" },
    { providerId: "bad-login", hostKeys: [...bench.host.address.hostKeys], code: "login" },
  ];
  const otherKey = join(folder, "other-key");
  await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", otherKey]);
  for (const { providerId, hostKeys, code } of providers) {
    await installation.api.call("addProvider", {
      body: {
        providerId,
        secret: await run("cat", [otherKey]),
        settings: { kind: "libvirt", ssh: { ...common, hostKeys } },
      },
    });
    const { jobId } = await installation.api.call("testProvider", { id: providerId });
    const job = await installation.ended(jobId);
    const told = JSON.stringify(job);
    expect(told, code).toMatch(code === "login" ? /login|refused/i : /is pinned/);
    expect(told).not.toContain("PRIVATE KEY");
  }
});
