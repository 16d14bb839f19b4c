import { describe, expect, test } from "vitest";
import { type FailureCode, isFailure } from "../domain/failure.ts";
import { systemClock } from "../ports/clock.ts";
import type { ObjectStore } from "../ports/object-store.ts";
import { systemRandom } from "../ports/random.ts";
import { createMemoryObjectStore } from "../storage/memory/memory-object-store.ts";
import { createDigests } from "./extent-map/digest.ts";
import { emptyLeafTable } from "./extent-map/disk-record.ts";
import { diskDigest } from "./extent-map/disk-records.ts";
import {
  createRepository,
  type NewPoint,
  openRepository,
  type PointSummary,
  type Repository,
} from "./repository.ts";
import type { Session } from "./session/sessions.ts";

const passphraseCost = { memoryKiB: 64, passes: 1 };
const parts = { clock: systemClock, random: systemRandom };

function create(store: ObjectStore): Promise<Repository> {
  return createRepository({ store, passphrase: "right", passphraseCost, ...parts });
}

function open(store: ObjectStore, passphrase = "right"): Promise<Repository> {
  return openRepository({ store, passphrase, ...parts });
}

async function failsWith(code: FailureCode, attempt: Promise<unknown>): Promise<void> {
  await expect(attempt).rejects.toSatisfy((error) => isFailure(error, code));
}

function begin(repository: Repository, sessionId?: string): Promise<Session> {
  const silenceSeconds = 60;
  return repository.sessions.begin({
    kind: "backup",
    holder: "test",
    pins: [],
    silenceSeconds,
    sessionId,
  });
}

/** In a session of its own. */
async function write(repository: Repository, point: NewPoint): Promise<{ rootKey: string }> {
  return repository.writePoint(await begin(repository), point);
}

/** A disk that is one hole: enough for a point. */
async function emptyDisk(repository: Repository): Promise<string> {
  const { leafBytes } = repository.settings;
  const sizeBytes = 10_000;
  const leaves = emptyLeafTable(sizeBytes, leafBytes);
  leaves.set(0, "hole");
  const stats = { bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  const record = { diskKey: "vda", sizeBytes, leafBytes, leaves, stats };
  const digest = diskDigest(createDigests(repository.secrets), record, "disk");
  return repository.writeDiskRecord(await begin(repository), { ...record, digest });
}

function pointOf(recordKey: string, more: Partial<NewPoint> = {}): NewPoint {
  const description = {
    name: "web",
    uuid: "u",
    memoryBytes: 1,
    vcpus: 1,
    architecture: "x86_64",
    firmware: "bios" as const,
    disks: [],
    nics: [],
    tags: ["a"],
  };
  return {
    pointId: "p1",
    vmKey: "vm1",
    vmName: "web",
    providerId: "host",
    jobId: "j1",
    fence: 1,
    takenAt: "2026-11-20T12:00:00Z",
    mode: "full",
    consistency: "application",
    warnings: ["w"],
    metadata: { providerKind: "libvirt", description, excludedDisks: [], documents: { a: "b" } },
    disks: [{ key: "vda", recordKey, mode: "full", reason: "" }],
    ...more,
  };
}

async function listed(repository: Repository, vmKey?: string): Promise<readonly PointSummary[]> {
  const found: PointSummary[] = [];
  for await (const point of repository.listPoints(vmKey === undefined ? {} : { vmKey })) {
    found.push(point);
  }
  return found;
}

describe("opening", () => {
  test("a created repository opens with its passphrase only", async () => {
    const store = createMemoryObjectStore();
    const { repositoryId, settings } = await create(store);
    expect(await open(store)).toMatchObject({ repositoryId, settings });
    await failsWith("repository.key-wrong", open(store, "wrong"));
    await failsWith("repository.exists", create(store));
    await failsWith("repository.not-found", open(createMemoryObjectStore()));
    const empty = createMemoryObjectStore();
    await failsWith("input.invalid", createRepository({ store: empty, passphrase: "", ...parts }));
  });

  test("where only the config is lost no new repository is made, and nobody is told to make one", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    await store.remove(["config"]);
    // Nothing but a key: a creation that was cut off. It may be repeated.
    await failsWith("repository.not-found", open(store));
    await create(store);
    await store.put("packs/00/0011", new Uint8Array(1));
    await store.remove(["config"]);
    await failsWith("object.corrupt", open(store));
    await failsWith("repository.exists", create(store));
    expect(await store.head("config")).toBeUndefined();
  });

  test("without any key wrapping the passphrase is not what is wrong", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    for await (const { key } of store.list("keys/")) await store.remove([key]);
    await failsWith("object.corrupt", open(store));
  });

  test("a passphrase is the same however its accents were typed", async () => {
    const store = createMemoryObjectStore();
    await createRepository({ store, passphrase: "caf\u00e9", passphraseCost, ...parts });
    await open(store, "cafe\u0301");
  });

  test("a newer format or an unknown feature is refused before anything else is read", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const config = await store.get("config");
    const newer = Uint8Array.from(config);
    newer[8] = 2;
    const json = Buffer.from(config)
      .toString("latin1")
      .replace('"features":[]', '"features":["x"]');
    const feature = Buffer.from(json, "latin1");
    feature.writeUInt32LE(feature.readUInt32LE(16) + 3, 16);
    for (const bytes of [newer, feature]) {
      const other = createMemoryObjectStore();
      await other.put("config", bytes);
      await failsWith("repository.format-unknown", open(other));
    }
  });

  test("settings that were changed in the config are found", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const json = Buffer.from(await store.get("config")).toString("latin1");
    await store.remove(["config"]);
    const changed = json.replace('"packBytes":33554432', '"packBytes":16777216');
    await store.put("config", Buffer.from(changed, "latin1"));
    await failsWith("object.corrupt", open(store));
  });

  test("of two that create at once, one wins and the other is told", async () => {
    const store = createMemoryObjectStore();
    const both = await Promise.allSettled([create(store), create(store)]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    await open(store);
  });
});

describe("points", () => {
  test("a written point is read back as it was, and listed", async () => {
    const repository = await create(createMemoryObjectStore());
    const point = pointOf(await emptyDisk(repository), {
      parent: { pointId: "p0", rootKey: "points/vm1/p0-j0-1-x" },
    });
    const { rootKey } = await write(repository, point);
    const { metadata, ...summary } = await repository.readPoint(rootKey);
    expect(metadata).toEqual(point.metadata);
    expect(summary).toMatchObject({ pointId: "p1", parentPointId: "p0", warnings: ["w"], rootKey });
    expect(summary.disks).toMatchObject([{ key: "vda", sizeBytes: 10_000 }]);
    expect(await listed(repository)).toEqual([summary]);
    expect(await listed(repository, "vm1")).toEqual([summary]);
    expect(await listed(repository, "vm")).toEqual([]);
  });

  test("a point is not written over a disk record that is missing or another disk's", async () => {
    const repository = await create(createMemoryObjectStore());
    const missing = `disks/${"0".repeat(32)}`;
    await failsWith("object.not-found", write(repository, pointOf(missing)));
    const recordKey = await emptyDisk(repository);
    const disks = [{ key: "vdb", recordKey, mode: "full" as const, reason: "" }];
    await failsWith("input.invalid", write(repository, pointOf(recordKey, { disks })));
    expect(await listed(repository)).toEqual([]);
  });

  test("the same attempt writes one root, however often it runs", async () => {
    const store = createMemoryObjectStore();
    const repository = await create(store);
    const recordKey = await emptyDisk(repository);
    const session = await begin(repository);
    const first = await repository.writePoint(session, pointOf(recordKey));
    const again = await repository.sessions.list();
    expect(await repository.writePoint(session, pointOf(recordKey))).toEqual(first);
    expect(await repository.sessions.list()).toEqual(again);
    const names: string[] = [];
    for await (const { key } of store.list("points/")) names.push(key);
    expect(names).toEqual([first.rootKey]);
  });

  test("of several attempts the highest fence is listed, then the smallest name", async () => {
    const repository = await create(createMemoryObjectStore());
    const recordKey = await emptyDisk(repository);
    for (const fence of [9, 10, 2]) await write(repository, pointOf(recordKey, { fence }));
    await write(repository, pointOf(recordKey, { pointId: "p1-a", fence: 1 }));
    const all = await listed(repository);
    expect(all.map(({ pointId, fence }) => [pointId, fence])).toEqual([
      ["p1", 10],
      ["p1-a", 1],
    ]);
    const jobs = ["j3", "j2"];
    for (const jobId of jobs) await write(repository, pointOf(recordKey, { jobId, fence: 11 }));
    expect((await listed(repository))[0]).toMatchObject({ jobId: "j2", fence: 11 });
  });

  test("an attempt whose ids are another's beginning is not taken for it", async () => {
    const repository = await create(createMemoryObjectStore());
    const recordKey = await emptyDisk(repository);
    const one = await write(repository, pointOf(recordKey, { jobId: "j-1", fence: 1 }));
    const two = await write(repository, pointOf(recordKey, { jobId: "j", fence: 1 }));
    expect(two.rootKey).not.toBe(one.rootKey);
    await failsWith("input.invalid", write(repository, pointOf(recordKey, { vmKey: "../x" })));
  });

  test("what another repository's key sealed is ignored, and what was never a root", async () => {
    const store = createMemoryObjectStore();
    const repository = await create(store);
    const foreign = await create(createMemoryObjectStore());
    const { rootKey } = await write(foreign, pointOf(await emptyDisk(foreign)));
    await store.put(rootKey, await foreign.store.get(rootKey));
    await store.put("points/vm1/note.txt", Buffer.from("hello"));
    const reported: string[] = [];
    const onUnreadable = ({ key }: { readonly key: string }): number => reported.push(key);
    for await (const point of repository.listPoints({ onUnreadable }))
      throw new Error(point.rootKey);
    expect(reported).toEqual([]);
  });
});
