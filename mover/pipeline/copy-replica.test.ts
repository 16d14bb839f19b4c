import { Failure } from "@holdfast/shared/domain/failure";
import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { copyReplica, type ReplicaReport } from "./copy-replica.ts";
import { backUp, collectNow, diskOf, hookedStore, keysOf, restoreAll } from "./test-collect.ts";
import {
  beginSession,
  createTestRepository,
  openTestRepository,
  passphrase,
} from "./test-repository.ts";

const disks = new Map([
  ["vm-a/point-1", diskOf(1, 2, 3, 4)],
  ["vm-a/point-2", diskOf(1, 2, 30, 4)],
  ["vm-b/point-1", diskOf(7, 8)],
]);

async function withPoints(store: ObjectStore): Promise<Repository> {
  const repository = await createTestRepository(store);
  for (const [name, disk] of disks) {
    const [vm = "", pointId = ""] = name.split("/");
    await backUp(repository, { vm, pointId, disk });
  }
  return repository;
}

function replicate(source: Repository, targetStore: ObjectStore): Promise<ReplicaReport> {
  return copyReplica({
    source,
    targetStore,
    openTarget: () => openTestRepository(targetStore, passphrase),
    holder: "test",
    clock: systemClock,
    signal: new AbortController().signal,
    logger: silentLogger,
  });
}

test("a replica opens with the same passphrase, restores every point, and is written to like its source", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const store = createMemoryObjectStore();
  expect(await replicate(source, store)).toMatchObject({ points: 3, different: [] });
  const replica = await openTestRepository(store);
  expect(replica.repositoryId).toBe(source.repositoryId);
  expect((await restoreAll(replica, disks)).length).toBe(disks.size);
  const more = diskOf(1, 2, 30, 5);
  await backUp(replica, { vm: "vm-a", pointId: "point-3", disk: more });
  await collectNow(replica);
  const all = new Map([...disks, ["vm-a/point-3", more]]);
  expect((await restoreAll(replica, all)).length).toBe(all.size);
});

test("a second run copies only what is new, and never removes", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const store = createMemoryObjectStore();
  await replicate(source, store);
  expect(await replicate(source, store)).toMatchObject({ points: 3, objects: 0, bytes: 0 });
  const disk = diskOf(1, 2, 30, 44);
  await backUp(source, { vm: "vm-a", pointId: "point-3", disk });
  const [gone = ""] = await keysOf(source.store, "points/vm-b/");
  expect((await collectNow(source, { expire: [gone] })).state).toBe("done");
  const again = await replicate(source, store);
  expect(again.points).toBe(3);
  expect(again.objects).toBeGreaterThan(4);
  const all = new Map([...disks, ["vm-a/point-3", disk]]);
  expect((await restoreAll(await openTestRepository(store), all)).length).toBe(4);
});

test("attempts, expired points and open sessions are left out", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const open = await beginSession(source);
  const [expired = ""] = await keysOf(source.store, "points/vm-b/");
  expect((await collectNow(source, { expire: [expired] })).state).toBe("waiting");
  const store = createMemoryObjectStore();
  expect((await replicate(source, store)).points).toBe(2);
  expect(await keysOf(store, `sessions/${open.sessionId}/`)).toEqual([]);
  const kept = new Map([...disks].filter(([name]) => !name.startsWith("vm-b")));
  expect((await restoreAll(await openTestRepository(store), kept)).length).toBe(2);
  // What the collection of the source has left is no garbage of a session that nobody knows: the replica's own collection takes it.
  expect((await collectNow(await openTestRepository(store))).state).toBe("done");
  expect((await restoreAll(await openTestRepository(store), kept)).length).toBe(2);
});

test("another repository, and a store with other things in it, are refused and stay as they are", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const other = createMemoryObjectStore();
  await createTestRepository(other);
  const before = await keysOf(other);
  await expect(replicate(source, other)).rejects.toMatchObject({ code: "input.invalid" });
  expect(await keysOf(other)).toEqual(before);
  const full = createMemoryObjectStore();
  await full.put("holiday.jpg", new Uint8Array(3));
  await expect(replicate(source, full)).rejects.toMatchObject({ code: "repository.exists" });
  expect(await keysOf(full)).toEqual(["holiday.jpg"]);
});

test("while a collection of the replica waits nothing is copied there", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const store = createMemoryObjectStore();
  await replicate(source, store);
  const replica = await openTestRepository(store);
  const open = await beginSession(replica);
  const [expired = ""] = await keysOf(store, "points/vm-b/");
  expect((await collectNow(replica, { expire: [expired] })).state).toBe("waiting");
  await expect(replicate(source, store)).rejects.toMatchObject({ code: "busy" });
  await open.abort();
});

test("a replica that differs in an object's size is told, and not touched", async () => {
  const source = await withPoints(createMemoryObjectStore());
  const store = createMemoryObjectStore();
  await replicate(source, store);
  const [pack = ""] = await keysOf(store, "packs/");
  await store.remove([pack]);
  await store.put(pack, new Uint8Array(7));
  expect((await replicate(source, store)).different).toEqual([pack]);
  expect((await store.get(pack)).length).toBe(7);
});

test("a run that dies at any call leaves whole points only, and the next one finishes", async () => {
  const source = await withPoints(createMemoryObjectStore());
  let died = 0;
  for (let dieAt = 1; ; dieAt += 5) {
    const store = createMemoryObjectStore();
    const hooked = hookedStore(store, async (number) => {
      if (number >= dieAt) throw new Failure("storage.unreachable", { message: "dead" });
    });
    const outcome = await replicate(source, hooked).catch((error: unknown) => error);
    if ((await store.head("config")) !== undefined) {
      await restoreAll(await openTestRepository(store), disks);
    }
    if (!(outcome instanceof Error)) break;
    died += 1;
    await replicate(source, store);
    expect((await restoreAll(await openTestRepository(store), disks)).length).toBe(disks.size);
  }
  expect(died).toBeGreaterThan(6);
});

test("a point that is made while it runs is there in full or not at all", async () => {
  const store = createMemoryObjectStore();
  await withPoints(store);
  const late = diskOf(99, 98);
  for (const moment of ["list points/", "list packs/", "list disks/", "list sessions/"]) {
    let isDone = false;
    const pointId = `late-${moment.replaceAll(/\W/g, "")}`;
    const hooked = hookedStore(store, async (_, what) => {
      if (isDone || what !== moment) return;
      isDone = true;
      await backUp(await openTestRepository(store), { vm: "vm-c", pointId, disk: late });
    });
    const target = createMemoryObjectStore();
    await replicate(await openTestRepository(hooked), target);
    expect(isDone).toBe(true);
    const lateOnes = ["points", "packs", "disks", "sessions"].map((its) => `vm-c/late-list${its}`);
    const all = new Map([...disks, ...lateOnes.map((name) => [name, late] as const)]);
    expect((await restoreAll(await openTestRepository(target), all)).length).toBeGreaterThan(2);
  }
});
