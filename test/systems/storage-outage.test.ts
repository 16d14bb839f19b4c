import { randomBytes } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { CreateBucketCommand } from "@aws-sdk/client-s3";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Installation, startInstallation } from "../helpers/installation.ts";
import { createMemoryHypervisor } from "../helpers/memory-hypervisor.ts";
import { type Ceph, startCeph } from "../testbeds/ceph.ts";

/** A repository in a real S3 store (radosgw) that goes away for a minute in the middle of a backup. */
const mebibyte = 1024 * 1024;
const outageMs = 60_000;
let ceph: Ceph;
let link: Link;
let installation: Installation;
const hypervisor = createMemoryHypervisor();
const variables = [
  "AWS_ENDPOINT_URL_S3",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_REGION",
];
const before = variables.map((name) => [name, process.env[name]] as const);

beforeAll(async () => {
  ceph = await startCeph({ folder: await mkdtemp("/var/tmp/hf-out-") });
  link = await startLink(Number(new URL(ceph.s3.endpoint).port));
  Object.assign(process.env, {
    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${link.port}`,
    AWS_ACCESS_KEY_ID: ceph.s3.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: ceph.s3.credentials.secretAccessKey,
    AWS_REGION: "us-east-1",
  });
  const client = createS3Client(ceph.s3);
  await client.send(new CreateBucketCommand({ Bucket: "backups" }));
  client.destroy();
  installation = await startInstallation({ repositoryUrl: "s3://backups/lab" });
  installation.startMover(hypervisor.driver);
  hypervisor.addVm("web", { vda: new Uint8Array(randomBytes(200 * mebibyte)) });
  await installation.addProvider("memory");
});
afterAll(async () => {
  await installation?.stop();
  await link?.stop();
  await ceph?.stop({ wipe: true });
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

test("S3 down for a minute in mid-transfer: the job ends well and the point is right", async () => {
  let reads = 0;
  const wentDown = Promise.withResolvers<void>();
  hypervisor.hook = (call) => {
    if (!call.startsWith("read")) return;
    reads += 1;
    if (reads !== 100) return;
    link.down();
    setTimeout(() => link.up(), outageMs);
    wentDown.resolve();
  };
  const { jobId } = await installation.api.call("startBackup", { body: { vm: "web" } });
  await wentDown.promise;
  const job = await installation.ended(jobId);
  hypervisor.hook = () => undefined;
  expect(job.failure).toBeUndefined();
  const frozen = hypervisor.frozen(jobId, "vda");
  const restore = await installation.api.call("startRestore", {
    body: { pointId: jobId, name: "web-again" },
  });
  expect((await installation.ended(restore.jobId)).failure).toBeUndefined();
  const restored = [...hypervisor.vms.values()].find(({ name }) => name === "web-again");
  expect(Buffer.compare(restored?.disks[0]?.bytes ?? new Uint8Array(), frozen)).toBe(0);
});

type Link = { readonly port: number; down(): void; up(): void; stop(): Promise<void> };

/** A TCP link to the store that can be cut: connections are reset and new ones refused with a reset. */
async function startLink(target: number): Promise<Link> {
  const sockets = new Set<Socket>();
  let isDown = false;
  const server: Server = createServer((near) => {
    if (isDown) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(target, "127.0.0.1");
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    down() {
      isDown = true;
      for (const socket of sockets) socket.resetAndDestroy();
    },
    up() {
      isDown = false;
    },
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
