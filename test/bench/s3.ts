import { randomFillSync } from "node:crypto";
import { mkdtemp, open } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand } from "@aws-sdk/client-s3";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { type Ceph, startCeph } from "../testbeds/ceph.ts";
import { succeeds } from "../testbeds/run.ts";
import { type Bench, printRatios, printWorks } from "./bench.ts";
import {
  complain,
  holdfast,
  measure,
  mebibyte,
  newestPoint,
  ownProgram,
  remove,
  takeTurns,
} from "./measure.ts";

const mebibytes = 1024;
const repository = "s3://bench/holdfast";

/** Backup to and restore from radosgw, beside plain puts and gets of the same objects, as many at once. Needs root and Debian's ceph. */
export async function s3Section(bench: Bench): Promise<void> {
  if (process.getuid?.() !== 0 || !(await succeeds("which", ["radosgw"]))) {
    complain("without root and radosgw: no S3");
    return;
  }
  const ceph = await startCeph({ folder: await mkdtemp("/var/tmp/hf-bench-rgw-") });
  try {
    await run(bench, ceph);
  } finally {
    await ceph.stop({ wipe: true });
  }
}

async function run({ folder, rounds, environment: given }: Bench, ceph: Ceph): Promise<void> {
  const { accessKeyId, secretAccessKey } = ceph.s3.credentials;
  const environment = {
    ...given,
    AWS_ENDPOINT_URL_S3: ceph.s3.endpoint,
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_REGION: "us-east-1",
  };
  const client = createS3Client(ceph.s3);
  await client.send(new CreateBucketCommand({ Bucket: "bench" }));
  client.destroy();
  const [image, out] = [join(folder, "s3.raw"), join(folder, "out")];
  const file = await open(image, "w");
  const block = Buffer.alloc(mebibyte);
  for (let index = 0; index < mebibytes; index += 1) {
    randomFillSync(block);
    await file.write(block);
  }
  await file.sync();
  await file.close();
  await measure(holdfast("repository", "init", repository), environment);
  const backup = ["image", "backup", image, "--format", "raw", "--repository", repository];
  let turn = 0;
  const medians = await takeTurns(
    [
      {
        name: "holdfast, full",
        // New data each time: what is stored already would not be stored again.
        before: async () => {
          turn += 1;
          await scramble(image);
        },
        command: async () => holdfast(...backup, "--name", `disk-${turn}`),
      },
      {
        name: "holdfast, restore",
        before: () => remove(out),
        command: async () => {
          const point = await newestPoint(repository, environment);
          const restore = ["image", "restore", point, "--repository", repository];
          return holdfast(...restore, "--output", out);
        },
      },
      { name: "limit: plain puts", command: async () => ownProgram("plain-s3.ts", "put") },
      { name: "limit: plain gets", command: async () => ownProgram("plain-s3.ts", "get") },
    ],
    rounds,
    environment,
  );
  printWorks(`radosgw on this machine, ${mebibytes} MiB of random data`, medians, mebibytes);
  printRatios(medians, [
    { ours: "holdfast, full", theirs: "limit: plain puts", goal: 0.8 },
    { ours: "holdfast, restore", theirs: "limit: plain gets", goal: 0.8 },
  ]);
  await remove(image, out);
}

/** Other bytes in every piece of 64 KiB. */
async function scramble(path: string): Promise<void> {
  await using file = await open(path, "r+");
  const bytes = Buffer.alloc(16);
  const { size } = await file.stat();
  for (let at = 0; at < size; at += 64 * 1024) {
    randomFillSync(bytes);
    await file.write(bytes, 0, bytes.length, at);
  }
  await file.sync();
}
