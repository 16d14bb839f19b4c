import { randomUUID } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import {
  CreateBucketCommand,
  ListObjectVersionsCommand,
  PutBucketLifecycleConfigurationCommand,
  PutBucketVersioningCommand,
  PutObjectLockConfigurationCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import type { ObjectStore, ObjectStoreSupports } from "@holdfast/shared/ports/object-store";
import { inspectS3Storage } from "@holdfast/shared/storage/s3/inspect-s3-storage";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { createS3ObjectStore } from "@holdfast/shared/storage/s3/s3-object-store";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeObjectStore, type OpenedObjectStore } from "../conformance/object-store.ts";
import { type Ceph, startCeph } from "../testbeds/ceph.ts";

/** The S3 driver against a real S3-compatible store: Ceph's radosgw. */
let ceph: Ceph;
let client: S3Client;
const plainBucket = "plain";
const versionedBucket = "versioned";
const lockedBucket = "locked";

beforeAll(async () => {
  ceph = await startCeph({ folder: await mkdtemp("/var/tmp/hf-rgw-") });
  client = createS3Client(ceph.s3);
  for (const Bucket of [plainBucket, versionedBucket]) {
    await client.send(new CreateBucketCommand({ Bucket }));
  }
  await client.send(
    new CreateBucketCommand({ Bucket: lockedBucket, ObjectLockEnabledForBucket: true }),
  );
  await client.send(
    new PutBucketVersioningCommand({
      Bucket: versionedBucket,
      VersioningConfiguration: { Status: "Enabled" },
    }),
  );
});
afterAll(async () => {
  client?.destroy();
  await ceph?.stop({ wipe: true });
});

describeObjectStore({
  name: "radosgw",
  open: () => opened({ conditionalPut: true }),
  propertyRuns: 8,
});
describeObjectStore({
  name: "radosgw, not probed",
  open: () => opened(undefined),
  propertyRuns: 4,
});
describeObjectStore({
  name: "radosgw, versioned",
  open: () => openedIn(versionedBucket, { conditionalPut: false, versioned: true }),
  propertyRuns: 4,
});
describeObjectStore({
  name: "radosgw with Object Lock",
  open: () => openedIn(lockedBucket, { conditionalPut: false, versioned: true, objectLock: true }),
  propertyRuns: 4,
});

describe("the probe on radosgw", () => {
  const looked = async (bucket: string, prefix = randomUUID() as string) => {
    const { supports, findings } = await inspectS3Storage({ bucket, prefix, client });
    return { supports, ids: findings.map(({ id }) => id) };
  };

  test("finds that conditional puts work in a plain bucket, and that other checksums are ignored", async () => {
    expect(await looked(plainBucket)).toEqual({
      supports: { conditionalPut: true, versioned: false, objectLock: false, checksums: false },
      ids: [],
    });
  });

  test("finds that they are ignored in a versioned bucket, and leaves no version behind", async () => {
    const prefix = randomUUID();
    expect(await looked(versionedBucket, prefix)).toEqual({
      supports: { conditionalPut: false, versioned: true, objectLock: false, checksums: false },
      ids: [],
    });
    const left = await client.send(
      new ListObjectVersionsCommand({ Bucket: versionedBucket, Prefix: prefix }),
    );
    expect([left.Versions, left.DeleteMarkers]).toEqual([undefined, undefined]);
  });

  test("finds Object Lock, and that it is kept", async () => {
    expect(await looked(lockedBucket)).toMatchObject({ supports: { objectLock: true }, ids: [] });
  });

  test("finds a default retention and rules that would remove objects", async () => {
    const bucket = "badly-set-up";
    await client.send(
      new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: true }),
    );
    const DefaultRetention = { Mode: "GOVERNANCE", Days: 1 } as const;
    await client.send(
      new PutObjectLockConfigurationCommand({
        Bucket: bucket,
        ObjectLockConfiguration: { ObjectLockEnabled: "Enabled", Rule: { DefaultRetention } },
      }),
    );
    const rule = { ID: "tidy", Status: "Enabled", Filter: { Prefix: "" } } as const;
    await client.send(
      new PutBucketLifecycleConfigurationCommand({
        Bucket: bucket,
        LifecycleConfiguration: { Rules: [{ ...rule, Expiration: { Days: 7 } }] },
      }),
    );
    const { ids } = await looked(bucket);
    expect(ids).toEqual(["default-retention", "lifecycle-expires", "locked-unasked"]);
  });
});

describe("what radosgw refuses is told apart", () => {
  test("a wrong secret is refused", async () => {
    const credentials = { ...ceph.s3.credentials, secretAccessKey: "wrong" };
    const stranger = createS3Client({ endpoint: ceph.s3.endpoint, credentials });
    const store = createS3ObjectStore({ bucket: plainBucket, prefix: "", client: stranger });
    await expect(store.get("key")).rejects.toMatchObject({ code: "storage.refused" });
    stranger.destroy();
  });

  test("a missing bucket is refused, not an empty repository", async () => {
    const store = openAt({ bucket: "missing-bucket", prefix: "" });
    await expect(store.get("key")).rejects.toMatchObject({ code: "storage.refused" });
    await expect(store.list("")[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      code: "storage.refused",
    });
  });
});

test("more objects than a page are listed in order and removed", async () => {
  const store = openAt({ bucket: plainBucket, prefix: randomUUID() }, { conditionalPut: true });
  const keys = Array.from({ length: 1205 }, (_, index) => `many/${String(index).padStart(5, "0")}`);
  for (let first = 0; first < keys.length; first += 32) {
    const some = keys.slice(first, first + 32);
    await Promise.all(some.map((key) => store.put(key, Uint8Array.of(1))));
  }
  const listed: string[] = [];
  for await (const { key } of store.list("many/")) listed.push(key);
  expect(listed).toEqual(keys);
  await store.remove(keys);
  expect((await store.list("many/")[Symbol.asyncIterator]().next()).done).toBe(true);
});

async function opened(supports: ObjectStoreSupports | undefined): Promise<OpenedObjectStore> {
  return await openedIn(plainBucket, supports);
}

async function openedIn(
  bucket: string,
  supports: ObjectStoreSupports | undefined,
): Promise<OpenedObjectStore> {
  const store = openAt({ bucket, prefix: randomUUID() }, supports);
  return { store, close: async () => undefined };
}

function openAt(
  place: { readonly bucket: string; readonly prefix: string },
  supports?: ObjectStoreSupports,
): ObjectStore {
  return createS3ObjectStore({ ...place, client, ...(supports && { supports }) });
}
