import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListObjectVersionsCommand,
  type ObjectVersion,
  PutBucketLifecycleConfigurationCommand,
  PutBucketPolicyCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  PutObjectRetentionCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import {
  DoctorReport,
  LocksReport,
  standaloneResults,
} from "@holdfast/shared/contracts/standalone";
import { lockedObjectsIn } from "@holdfast/shared/ports/object-lock";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { createS3ObjectStore } from "@holdfast/shared/storage/s3/s3-object-store";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Ceph, startCeph } from "../testbeds/ceph.ts";
import { run } from "../testbeds/run.ts";
import { attackBucket, bucketPolicy } from "./storage-attacks.ts";

/**
 * Object Lock on a real store (radosgw), by the real command: thieves of a mover's credential (T01) and of the bucket owner's (T02) destroy what
 * they can; afterwards every recovery point restores byte for byte.
 */
const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const moverKeys = { accessKeyId: "mover-access", secretAccessKey: "mover-secret" } as const;
const supports = { conditionalPut: false, versioned: true, objectLock: true };
const bucket = "locked";
const url = `s3://${bucket}/lab`;
const dayMs = 24 * 60 * 60 * 1000;
let ceph: Ceph;
let folder: string;
let owner: S3Client;
let mover: S3Client;
const points: { readonly pointId: string; readonly sha256: string }[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-lock-"));
  ceph = await startCeph({ folder: await mkdtemp("/var/tmp/hf-lck-") });
  const { accessKeyId, secretAccessKey } = moverKeys;
  const user = ["--uid", "mover", "--display-name", "mover"];
  const keys = ["--access-key", accessKeyId, "--secret-key", secretAccessKey];
  await administer("user", "create", ...user, ...keys);
  owner = createS3Client(ceph.s3);
  mover = createS3Client({ endpoint: ceph.s3.endpoint, credentials: moverKeys });
  await owner.send(new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: true }));
  const init = await holdfast(["repository", "init", url, "--lock", "30d"]);
  expect(init).toMatchObject({ status: 0 });
  const Policy = JSON.stringify(bucketPolicy(bucket, { mover: "mover", owner: "testbed" }));
  await owner.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy }));
});
afterAll(async () => {
  owner?.destroy();
  mover?.destroy();
  await ceph?.stop({ wipe: true });
  if (folder !== undefined) await rm(folder, { recursive: true });
});

test("a mover that may create and read only backs up, and all that its points need is locked", async () => {
  await backUp("first");
  await backUp("second");
  const report = await extendLocks([]);
  // The starts of the sessions that made the points.
  expect(report).toMatchObject({ points: 2, extended: 2 });
  const left = Date.parse(report.until) - Date.now();
  expect(left).toBeGreaterThanOrEqual(30 * dayMs);
  expect(left).toBeLessThan(41 * dayMs);
});

test("the doctor works with a mover's credential, and says what that may not do", async () => {
  const { status, ids } = await examine(moverKeys);
  expect(ids).toEqual(expect.arrayContaining(["unseen", "cannot-remove", "points"]));
  expect(status).toBe(0);
});

test("T01: with a mover's credential nothing that counts is destroyed", async () => {
  const before = await firstVersions();
  const outcomes = await attackBucket(mover, {
    bucket,
    victims: before,
    otherUser: ceph.s3.credentials.accessKeyId,
  });
  expect(outcomes.length).toBeGreaterThanOrEqual(20);
  // Who may create may overwrite where the store does not know conditions in policies: a newer version hides the first one, which stays.
  const allowed = outcomes.filter(({ denied }) => !denied).map(({ name }) => name);
  expect(allowed.filter((name) => !name.startsWith("overwrite"))).toEqual([]);
  expect(await firstVersions()).toEqual(before);
  const doctor = await examine();
  expect(doctor.status).toBe(1);
  expect(doctor.ids).toContain(allowed.length > 0 ? "overwritten" : "points");
  await recoverAndRestoreAll();
});

test("T02: the bucket's owner cannot end the locks; what was hidden comes back", async () => {
  const before = await firstVersions();
  for (const { Key, VersionId } of before) {
    const denied = { name: "AccessDenied" };
    const removal = { Bucket: bucket, Key, VersionId, BypassGovernanceRetention: true };
    const isLocked = /\/(packs|disks|metadata|points|keys)\/|\/config$/.test(`/${Key}`);
    if (!isLocked) continue;
    await expect(owner.send(new DeleteObjectCommand(removal))).rejects.toMatchObject(denied);
    const earlier = { Mode: "COMPLIANCE", RetainUntilDate: new Date(Date.now() + 1000) } as const;
    const shorten = { Bucket: bucket, Key, VersionId, Retention: earlier };
    await expect(owner.send(new PutObjectRetentionCommand(shorten))).rejects.toMatchObject(denied);
  }
  const versioning = { Bucket: bucket, VersioningConfiguration: { Status: "Suspended" } } as const;
  await expect(owner.send(new PutBucketVersioningCommand(versioning))).rejects.toThrow();
  await expect(owner.send(new DeleteBucketCommand({ Bucket: bucket }))).rejects.toThrow();

  // What no lock forbids: overwriting all, delete markers on all, and a rule that removes the rest.
  for (const { Key } of before) {
    await owner.send(new PutObjectCommand({ Bucket: bucket, Key, Body: Buffer.from("gone") }));
  }
  const Objects = before.slice(0, before.length / 2).map(({ Key }) => ({ Key: Key ?? "" }));
  await owner.send(new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects } }));
  await expireEverything();
  expect(await firstVersions()).toEqual(before);
  const { hidden } = await recover(["--dry-run"]);
  const names = hidden.map(({ key }) => `lab/${key}`);
  expect(names).toEqual(expect.arrayContaining(before.map(({ Key }) => Key)));
  expect(hidden.every(({ why }) => why === "deleted")).toBe(true);
  expect((await holdfast(["image", "points", "--repository", url])).status).not.toBe(0);
  await recoverAndRestoreAll();
  const { ids } = await examine();
  expect(ids).toContain("lifecycle-expires");
});

test("retention is extended, a removal says until when, and a legal hold has no date", async () => {
  const later = await extendLocks(["--days", "90"]);
  expect(later.extended).toBe(later.objects);
  expect((await extendLocks(["--days", "90"])).extended).toBe(0);
  const store = createS3ObjectStore({ bucket, prefix: "lab", client: owner, supports });
  const [pointId] = points.map((point) => point.pointId);
  const hold = ["image", "hold", pointId ?? "", "on", "--repository", url];
  expect(await holdfast(hold)).toMatchObject({ status: 0 });
  const error: unknown = await store.remove(["config"]).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: "storage.locked" });
  expect(lockedObjectsIn(error)).toEqual([{ key: "config", until: later.until, legalHold: true }]);
  expect(await holdfast(hold.with(3, "off"))).toMatchObject({ status: 0 });
  expect((await store.locks?.look("config"))?.legalHold).toBe(false);
});

async function backUp(name: string): Promise<void> {
  const bytes = randomBytes(5_000_000);
  const file = join(folder, `${name}.raw`);
  await writeFile(file, bytes);
  const words = ["image", "backup", file, "--repository", url, "--json"];
  const done = await holdfast(words, moverKeys);
  expect(done.status, done.stderr).toBe(0);
  const { result } = JSON.parse(done.stdout.trimEnd().split("\n").at(-1) ?? "");
  points.push({ pointId: result.point.pointId, sha256: sha256Of(bytes) });
}

async function recoverAndRestoreAll(): Promise<void> {
  await recover([]);
  expect(await recover([])).toEqual({ hidden: [], recovered: 0 });
  for (const { pointId, sha256 } of points) {
    const output = join(folder, "restored.raw");
    const words = ["image", "restore", pointId, "--repository", url, "-o", output];
    const restored = await holdfast(words);
    expect(restored.status, restored.stderr).toBe(0);
    expect(sha256Of(await readFile(output))).toBe(sha256);
    await rm(output);
  }
}

async function recover(words: readonly string[]) {
  const done = await holdfast(["repository", "recover", url, "--json", ...words]);
  expect(done.status, done.stderr).toBe(0);
  return standaloneResults["repository-recover"].parse(JSON.parse(done.stdout));
}

/** A lifecycle rule whose date has passed, carried out at once. */
async function expireEverything(): Promise<void> {
  const Expiration = { Date: new Date(Math.floor(Date.now() / dayMs - 1) * dayMs) };
  const rule = { ID: "tidy", Status: "Enabled", Filter: { Prefix: "" }, Expiration } as const;
  await owner.send(
    new PutBucketLifecycleConfigurationCommand({
      Bucket: bucket,
      LifecycleConfiguration: { Rules: [rule] },
    }),
  );
  await administer("lc", "process");
}

/** The version of each object that was put first: what nobody may destroy. */
async function firstVersions(): Promise<
  readonly Pick<ObjectVersion, "Key" | "VersionId" | "Size">[]
> {
  const first = new Map<string, Pick<ObjectVersion, "Key" | "VersionId" | "Size">>();
  let marker: { KeyMarker?: string | undefined; VersionIdMarker?: string | undefined } = {};
  for (;;) {
    const page = await owner.send(new ListObjectVersionsCommand({ Bucket: bucket, ...marker }));
    for (const { Key = "", VersionId, Size } of page.Versions ?? []) {
      // Signs of life and the probe's remains come and go.
      if (!/\/(probe|index)\/|\/renew-/.test(Key)) first.set(Key, { Key, VersionId, Size });
    }
    if (page.IsTruncated !== true) return [...first.values()];
    marker = { KeyMarker: page.NextKeyMarker, VersionIdMarker: page.NextVersionIdMarker };
  }
}

async function examine(
  credentials?: Credentials,
): Promise<{ readonly status: number; readonly ids: readonly string[] }> {
  const words = ["repository", "doctor", url, "--json"];
  const { status, stdout } = await holdfast(words, credentials);
  return { status, ids: DoctorReport.parse(JSON.parse(stdout)).findings.map(({ id }) => id) };
}

async function extendLocks(words: readonly string[]): Promise<LocksReport> {
  const done = await holdfast(["repository", "extend-locks", url, "--json", ...words]);
  expect(done.status, done.stderr).toBe(0);
  return LocksReport.parse(JSON.parse(done.stdout));
}

function administer(...words: readonly string[]): Promise<string> {
  const environment = { CEPH_CONF: ceph.configFile };
  return run("timeout", ["120", "radosgw-admin", "-n", "client.rgw", ...words], { environment });
}

type Credentials = { readonly accessKeyId: string; readonly secretAccessKey: string };
type Done = { readonly status: number; readonly stdout: string; readonly stderr: string };

function holdfast(
  words: readonly string[],
  credentials: Credentials = ceph.s3.credentials,
): Promise<Done> {
  const env = {
    PATH: process.env["PATH"],
    HOME: folder,
    HOLDFAST_PASSPHRASE: "correct horse",
    AWS_ENDPOINT_URL_S3: ceph.s3.endpoint,
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  };
  return new Promise((resolve) => {
    execFile(process.execPath, [command, ...words], { env }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ status, stdout, stderr });
    });
  });
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
