import { systemClock } from "@holdfast/shared/ports/clock";
import { systemRandom } from "@holdfast/shared/ports/random";
import { extendLocks } from "@holdfast/shared/repository/maintenance/locks";
import { createRepository } from "@holdfast/shared/repository/repository";
import type { StorageReport } from "@holdfast/shared/storage/finding";
import { hiddenObjects, recoverObject } from "@holdfast/shared/storage/recover-versions";
import { inspectS3Storage } from "@holdfast/shared/storage/s3/inspect-s3-storage";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { createS3ObjectStore } from "@holdfast/shared/storage/s3/s3-object-store";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type S3Call,
  type S3Fault,
  type S3Server,
  startS3Server,
} from "./object-store-s3-server.ts";

/** What the inspection of a bucket finds, and that it leaves nothing behind. */
let server: S3Server;
let client: ReturnType<typeof createS3Client>;

async function start(options: { readonly objectLock?: boolean } = {}): Promise<void> {
  server = await startS3Server(options);
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  client = createS3Client({ endpoint: server.endpoint, credentials, attemptsMax: 1 });
}
beforeEach(() => start());
afterEach(stop);

async function stop(): Promise<void> {
  client.destroy();
  await server[Symbol.asyncDispose]();
}

const inspect = (): Promise<StorageReport> =>
  inspectS3Storage({ bucket: "bucket", prefix: "lab", client });

const idsOf = ({ findings }: StorageReport): readonly string[] =>
  findings.map(({ severity, id }) => `${severity} ${id}`);

describe("a plain bucket", () => {
  test("is found to be what it is, and left as it was", async () => {
    const report = await inspect();
    expect(report.supports).toEqual({
      conditionalPut: true,
      versioned: false,
      objectLock: false,
      checksums: true,
    });
    expect(report.findings).toEqual([]);
    expect(server.objects.size).toBe(0);
  });

  test.each<[string, string, string]>([
    [
      "lifecycle",
      "<Rule><ID>tidy</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><Expiration><Days>7</Days></Expiration></Rule>",
      "danger lifecycle-expires",
    ],
    [
      "object-lock",
      "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule>",
      "warning default-retention",
    ],
    ["versioning", "<Status>Suspended</Status>", "warning versioning-suspended"],
  ])("its %s is told", async (name, document, expected) => {
    server.settings.set(name, document);
    // What it says counts here; what the store then does is another test's.
    server.onCall = ({ operation }) =>
      operation === "lock" ? { kind: "status", status: 403, code: "AccessDenied" } : undefined;
    expect(idsOf(await inspect())).toContain(expected);
  });

  test("what may not be looked at is said, not guessed", async () => {
    refuse("bucket", { kind: "status", status: 403, code: "AccessDenied" });
    const report = await inspect();
    expect(idsOf(report)).toEqual(["note unseen", "note unseen", "note unseen"]);
    expect(report.supports).toMatchObject({ versioned: undefined, objectLock: undefined });
  });

  test("a credential that may not remove is right for movers", async () => {
    refuse("remove", { kind: "status", status: 403, code: "AccessDenied" });
    expect(idsOf(await inspect())).toEqual(["note cannot-remove"]);
  });

  test("checksums that are stored unread are not counted on", async () => {
    refuse("put", { kind: "unchecked" });
    const report = await inspect();
    expect(report.supports.checksums).toBe(false);
    expect(idsOf(report)).toEqual(["warning md5-ignored"]);
  });

  test("clocks that disagree are dangerous, from five minutes on", async () => {
    server.clockOffsetMs = 6 * 60_000;
    await expect(inspect()).rejects.toMatchObject({ code: "clock.wrong" });
    await stop();
    await start();
    server.clockOffsetMs = -2 * 60_000;
    expect(idsOf(await inspect())).toEqual(["warning clock"]);
  });

  test("a wrong bucket and a store that is away are failures, not findings", async () => {
    refuse("bucket", { kind: "status", status: 404, code: "NoSuchBucket" });
    await expect(inspect()).rejects.toMatchObject({ code: "storage.refused" });
    refuse("bucket", { kind: "status", status: 503, code: "SlowDown" });
    await expect(inspect()).rejects.toMatchObject({ code: "storage.unreachable" });
  });
});

describe("a bucket with Object Lock", () => {
  beforeEach(async () => {
    await stop();
    await start({ objectLock: true });
  });

  test("is found to keep what it is told to keep, and left as it was", async () => {
    const report = await inspect();
    expect(report.supports).toMatchObject({ versioned: true, objectLock: true });
    expect(report.findings).toEqual([]);
    const store = openLocked();
    expect(await collect(store.versions?.list("") ?? none())).toEqual([]);
  });

  test("one that forgets its locks is dangerous", async () => {
    server.onCall = ({ operation }) => (operation === "lock" ? { kind: "ignored" } : undefined);
    expect(idsOf(await inspect())).toContain("danger lock-not-kept");
  });

  test("locks are extended on the version that was put first, not on what lies above it", async () => {
    const store = openLocked();
    const lock = { mode: "compliance", days: 20 } as const;
    const repository = await createRepository({
      store,
      lock,
      passphrase: "correct horse",
      passphraseCost: { memoryKiB: 64, passes: 1 },
      clock: systemClock,
      random: systemRandom,
    });
    server.hide("lab/config", Uint8Array.of(1));
    const longer = { ...lock, days: 200 };
    const report = await extendLocks(repository, { lock: longer, dryRun: false });
    expect(report).toMatchObject({ objects: 2, extended: 2 });
    const versions = await collect(store.versions?.list("config") ?? none());
    const locks = versions.map(({ versionId }) => store.locks?.look("config", { versionId }));
    const [evil, first] = await Promise.all(locks);
    expect(evil?.retention).toBeUndefined();
    expect(first?.retention).toEqual({ mode: "compliance", untilMs: report.untilMs });
  });

  test("hidden objects are found and brought back, once; a copy hides nothing", async () => {
    const store = openLocked();
    const [first, second] = [Uint8Array.of(1, 2), Uint8Array.of(3)];
    for (const key of ["packs/a", "packs/b", "packs/c", "packs/d"]) await store.put(key, first);
    server.hide("lab/packs/b", undefined);
    server.hide("lab/packs/c", second);
    server.hide("lab/packs/c", undefined);
    server.hide("lab/packs/d", second);
    const hidden = await collect(hiddenObjects(store));
    expect(hidden.map(({ key, why }) => `${key} ${why}`)).toEqual([
      "packs/b deleted",
      "packs/c deleted",
      "packs/d overwritten",
    ]);
    for (const object of hidden) await recoverObject(store, object);
    for (const key of ["packs/a", "packs/b", "packs/c", "packs/d"]) {
      expect(await store.get(key)).toEqual(first);
    }
    expect(await collect(hiddenObjects(store))).toEqual([]);
    await store.remove(["packs/a", "packs/b", "packs/c", "packs/d"]);
    expect(await collect(store.versions?.list("") ?? none())).toEqual([]);
  });
});

function openLocked() {
  const supports = { conditionalPut: true, versioned: true, objectLock: true };
  return createS3ObjectStore({ bucket: "bucket", prefix: "lab", client, supports });
}

function refuse(operation: S3Call["operation"], fault: S3Fault): void {
  server.onCall = (call) => (call.operation === operation ? fault : undefined);
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<readonly Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function* none(): AsyncGenerator<never> {}
