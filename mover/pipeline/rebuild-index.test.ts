import { Failure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { parseShardName } from "@holdfast/shared/repository/index/index-shard";
import { readIndexRows } from "@holdfast/shared/repository/index/read-index";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { type RebuildReport, rebuildIndex } from "./rebuild-index.ts";
import { backUp, collectNow, diskOf, hookedStore, keysOf, restoreAll } from "./test-collect.ts";
import {
  beginSession,
  createTestRepository,
  openTestRepository,
  transfer,
} from "./test-repository.ts";

const disks = new Map([
  ["vm-a/point-1", diskOf(1, 2, 3, 4, 5, 6)],
  ["vm-a/point-2", diskOf(1, 2, 3, 40, 5, 6)],
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

async function rebuild(repository: Repository): Promise<RebuildReport> {
  const session = await beginSession(repository, { kind: "maintenance" });
  const signal = new AbortController().signal;
  try {
    return await rebuildIndex({ repository, session, segmentChunks: 4, signal });
  } finally {
    await session.abort();
  }
}

/** Each chunk that the stored index names, with the packs. */
async function indexed(repository: Repository): Promise<readonly string[]> {
  const rows: string[] = [];
  for await (const { key } of repository.store.list("index/")) {
    await readIndexRows(repository.objects, key, (pack, id, offset, stored) => {
      const shown = Buffer.from(id.subarray(0, 16)).toString("hex");
      rows.push(`${packName(pack.packId)} ${pack.epoch} ${offset} ${stored} ${shown}`);
    });
  }
  return rows.toSorted();
}

/** What a backup of all the disks together stores anew, by the index alone. */
async function bytesNew(repository: Repository): Promise<number> {
  let sum = 0;
  for (const disk of disks.values()) {
    const session = await beginSession(repository);
    const loader = createChunkIndexLoader(repository, { logger: silentLogger });
    const index = await loader.load(session, new AbortController().signal);
    sum += (await transfer(repository, createMemoryReader(disk), { session, ...index })).stats
      .bytesNew;
    await session.abort();
  }
  return sum;
}

test("an index that is lost, damaged or stale is as before after a rebuild", async () => {
  const store = createMemoryObjectStore();
  const repository = await withPoints(store);
  const before = await indexed(repository);
  expect(before.length).toBeGreaterThan(10);
  const old = await keysOf(store, "index/");
  await store.remove(old.slice(1));
  const damaged = old[0] ?? "";
  const bytes = Uint8Array.from(await store.get(damaged));
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  await store.remove([damaged]);
  await store.put(damaged, bytes);
  expect(await bytesNew(repository)).toBeGreaterThan(0);

  const report = await rebuild(repository);
  expect(report).toMatchObject({ damagedPacks: [], condemnedPacks: 0, isDryRun: false });
  const names = await keysOf(store, "index/");
  expect(names.every((name) => parseShardName(name) !== undefined)).toBe(true);
  expect(names).not.toContain(damaged);
  // What was stored a second time is named at one of its places.
  const idsOf = (rows: readonly string[]) => new Set(rows.map((row) => row.split(" ").at(-1)));
  expect(idsOf(await indexed(repository))).toEqual(idsOf(before));
  expect(await bytesNew(repository)).toBe(0);
  expect((await restoreAll(repository, disks)).length).toBe(disks.size);
});

test("a second rebuild changes nothing but names", async () => {
  const repository = await withPoints(createMemoryObjectStore());
  await rebuild(repository);
  const first = await indexed(repository);
  await rebuild(repository);
  expect(await indexed(repository)).toEqual(first);
});

test("without a session nothing is written", async () => {
  const store = createMemoryObjectStore();
  const repository = await withPoints(store);
  const before = await keysOf(store);
  const signal = new AbortController().signal;
  const report = await rebuildIndex({ repository, session: undefined, signal });
  expect(report.isDryRun).toBe(true);
  expect(report.chunks).toBe((await indexed(repository)).length);
  expect(await keysOf(store)).toEqual(before);
});

test("a pack whose footer does not open is named and left out", async () => {
  const store = createMemoryObjectStore();
  const repository = await withPoints(store);
  const row = (await indexed(repository))[0] ?? "";
  const pack = row.slice(0, row.indexOf(" "));
  const bytes = Uint8Array.from(await store.get(pack));
  bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 1;
  await store.remove([pack]);
  await store.put(pack, bytes);
  const report = await rebuild(repository);
  expect(report.damagedPacks.map(({ object }) => object)).toEqual([pack]);
  expect((await indexed(repository)).filter((its) => its.startsWith(pack))).toEqual([]);
});

test("condemned packs are not named again", async () => {
  const store = createMemoryObjectStore();
  const repository = await withPoints(store);
  const [gone] = await keysOf(store, "points/vm-b/");
  // Open, so that what is condemned stays for now.
  const other = await beginSession(repository);
  const collected = await collectNow(repository, { expire: [gone ?? ""] });
  expect(collected.state).toBe("waiting");
  const report = await rebuild(repository);
  expect(report.condemnedPacks).toBeGreaterThan(0);
  const condemned = await repository.sessions.condemned.load();
  const named = (await indexed(repository)).map((row) => row.split(" ")[0]?.slice(-32) ?? "");
  expect(named.filter((id) => condemned.packs.has(id))).toEqual([]);
  await other.abort();
  expect((await collectNow(repository)).state).toBe("done");
  await rebuild(repository);
  const kept = new Map([...disks].filter(([name]) => !name.startsWith("vm-b")));
  expect((await restoreAll(repository, kept)).length).toBe(kept.size);
});

test("what a backup adds meanwhile stays in the index", async () => {
  const store = createMemoryObjectStore();
  const repository = await withPoints(store);
  const disk = diskOf(90, 91);
  let isDone = false;
  const hooked = hookedStore(store, async (_, what) => {
    if (isDone || !what.startsWith("list packs/")) return;
    isDone = true;
    await backUp(repository, { vm: "vm-c", pointId: "point-1", disk });
  });
  await rebuild(await openTestRepository(hooked));
  expect(isDone).toBe(true);
  const session = await beginSession(repository);
  const loader = createChunkIndexLoader(repository, { logger: silentLogger });
  const index = await loader.load(session, new AbortController().signal);
  const again = await transfer(repository, createMemoryReader(disk), { session, ...index });
  expect(again.stats.bytesNew).toBe(0);
});

test("a rebuild that dies at any call leaves a repository that works, and the next one finishes", async () => {
  let died = 0;
  for (let dieAt = 1; ; dieAt += 3) {
    const store = createMemoryObjectStore();
    const repository = await withPoints(store);
    const before = await indexed(repository);
    const hooked = hookedStore(store, async (number) => {
      if (number >= dieAt) throw new Failure("storage.unreachable", { message: "dead" });
    });
    const outcome = await openTestRepository(hooked)
      .then(rebuild)
      .catch((error: unknown) => error);
    expect(new Set(await indexed(repository))).toEqual(new Set(before));
    if (!(outcome instanceof Error)) break;
    died += 1;
    await rebuild(repository);
    expect(await indexed(repository)).toEqual(before);
  }
  expect(died).toBeGreaterThan(5);
});
