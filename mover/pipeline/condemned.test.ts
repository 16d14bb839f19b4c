import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { packsOf } from "@holdfast/shared/repository/extent-map/leaf-table";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { CondemnedList } from "@holdfast/shared/repository/session/condemned";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  openTestRepository,
  restore,
  smallSettings,
  transfer,
} from "./test-repository.ts";

const { leafBytes } = smallSettings;
const disk = seededBytes(6 * leafBytes, 5);
const signal = new AbortController().signal;

async function names(store: ObjectStore, prefix: string): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

/** A disk that is stored, and its data packs in hexadecimal. */
async function stored() {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const loader = createChunkIndexLoader(repository, { logger: silentLogger });
  const session = await beginSession(repository);
  const index = await loader.load(session, signal);
  const { recordKey } = await transfer(repository, createMemoryReader(disk), {
    session,
    ...index,
  });
  const record = await repository.readDiskRecord(recordKey);
  const leafPacks = Array.from({ length: record.leaves.count }, (_, leaf) => {
    const ref = record.leaves.get(leaf);
    if (ref === undefined || ref === "hole") throw new Error("each leaf has data");
    return new Set(ref.packs.map(({ packId }) => Buffer.from(packId).toString("hex")));
  });
  const dataPacks = [...new Set(leafPacks.flatMap((packs) => [...packs]))];
  return { store, repository, loader, session, recordKey, leafPacks, dataPacks };
}

function condemn(repository: Repository, more: Partial<CondemnedList>): Promise<string> {
  const nothing = { madeAt: 0, packs: [], compacting: [], roots: [], objects: [] };
  return repository.sessions.condemned.put({ ...nothing, ...more });
}

async function restores(repository: Repository, recordKey: string): Promise<void> {
  const target = await restore(repository, recordKey, { sizeBytes: disk.length });
  expect(Buffer.compare(target.bytes, disk)).toBe(0);
}

async function packsOfRecord(repository: Repository, recordKey: string) {
  return new Set(packsOf((await repository.readDiskRecord(recordKey)).leaves).keys());
}

describe("names and records", () => {
  test.each([0, 2])(
    "all packs begin with their session, and the record lists exactly them (%i threads)",
    async (workers) => {
      const store = createMemoryObjectStore();
      const repository = await createTestRepository(store);
      const session = await beginSession(repository);
      const { recordKey } = await transfer(repository, createMemoryReader(disk), {
        session,
        workers,
      });
      const ids = (await names(store, "packs/")).map((name) => name.slice(-32));
      expect(ids.length).toBeGreaterThan(3);
      for (const id of ids) expect(id.slice(0, 16)).toBe(session.sessionId);
      expect(await packsOfRecord(repository, recordKey)).toEqual(new Set(ids));
    },
  );

  test("leaves that are taken over keep the packs that they need", async () => {
    const { repository, session, recordKey: previous } = await stored();
    const changed = Uint8Array.from(disk);
    changed.set(seededBytes(5000, 9), leafBytes);
    const extents = [
      { offset: 0, length: leafBytes, kind: "unchanged" as const },
      { offset: leafBytes, length: 8192, kind: "data" as const },
      { offset: leafBytes + 8192, length: 5 * leafBytes - 8192, kind: "unchanged" as const },
    ];
    const { recordKey } = await transfer(repository, createMemoryReader(changed, { extents }), {
      session,
      previous,
    });
    const before = await repository.readDiskRecord(previous);
    const after = await repository.readDiskRecord(recordKey);
    for (const leaf of [0, 2, 3, 4, 5]) {
      expect(after.leaves.get(leaf)).toEqual(before.leaves.get(leaf));
    }
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, changed)).toBe(0);
  });
});

describe("what is condemned is not used", () => {
  test.each(["packs", "compacting"] as const)("from the index (%s)", async (how) => {
    const { repository, loader, dataPacks } = await stored();
    const older = await beginSession(repository);
    const before = await loader.load(older, signal);
    await condemn(repository, { [how]: dataPacks });
    const session = await beginSession(repository);
    const after = await loader.load(session, signal);
    expect(after.index.count()).toBe(0);
    // Also when it is found all the same.
    for (const index of [after, before]) {
      const own = await beginSession(repository);
      const { recordKey, stats } = await transfer(repository, createMemoryReader(disk), {
        session: own,
        ...index,
        diskKey: "vdb",
      });
      if (index === after) expect(stats.bytesNew).toBe(disk.length);
      const used = await packsOfRecord(repository, recordKey);
      expect(used.isDisjointFrom(new Set(dataPacks))).toBe(true);
      await restores(repository, recordKey);
    }
    // Those who began before may; they are waited for.
    const { stats } = await transfer(repository, createMemoryReader(disk), {
      session: older,
      ...before,
    });
    expect(stats.bytesNew).toBe(0);
  });

  test("from the previous point's leaves: what needs a pack that goes is read again", async () => {
    const { repository, recordKey: previous, leafPacks } = await stored();
    const [doomed = ""] = leafPacks[2] ?? [];
    await condemn(repository, { packs: [doomed] });
    const extents = [{ offset: 0, length: disk.length, kind: "unchanged" as const }];
    const session = await beginSession(repository);
    const { recordKey, stats } = await transfer(repository, createMemoryReader(disk, { extents }), {
      session,
      previous,
    });
    const leavesRead = leafPacks.filter((packs) => packs.has(doomed)).length;
    expect(leavesRead).toBeLessThan(leafPacks.length);
    expect(stats.bytesRead).toBe(leavesRead * leafBytes);
    expect((await packsOfRecord(repository, recordKey)).has(doomed)).toBe(false);
    await restores(repository, recordKey);
  });

  test("leaves of the previous point stay when their packs are only to be compacted, but new data takes nothing of them", async () => {
    const { repository, recordKey: previous, dataPacks } = await stored();
    await condemn(repository, { compacting: dataPacks });
    const session = await beginSession(repository);
    const extents = [
      { offset: 0, length: leafBytes, kind: "data" as const },
      { offset: leafBytes, length: 5 * leafBytes, kind: "unchanged" as const },
    ];
    const { recordKey, stats } = await transfer(repository, createMemoryReader(disk, { extents }), {
      session,
      previous,
    });
    // The first leaf is as it was, but what it needs is stored again.
    expect(stats.bytesRead).toBe(leafBytes);
    expect(stats.bytesNew).toBe(leafBytes);
    await restores(repository, recordKey);
  });

  test("a record that goes is nobody's previous one", async () => {
    const { repository, recordKey: previous } = await stored();
    await condemn(repository, { objects: [previous] });
    const extents = [{ offset: 0, length: disk.length, kind: "unchanged" as const }];
    const session = await beginSession(repository);
    const attempt = transfer(repository, createMemoryReader(disk, { extents }), {
      session,
      previous,
    });
    expect((await attempt).stats.bytesRead).toBe(disk.length);
  });
});

describe("the index in memory", () => {
  test("is kept from session to session, and takes in what others have written", async () => {
    const { store, repository, loader } = await stored();
    const others = await openTestRepository(store);
    await transfer(others, createMemoryReader(seededBytes(100_000, 8)));
    const reads: string[] = [];
    const watched: Repository = {
      ...repository,
      objects: {
        ...repository.objects,
        get: (name, type, options) => {
          reads.push(name);
          return repository.objects.get(name, type, options);
        },
      },
    };
    const first = createChunkIndexLoader(watched, { logger: silentLogger });
    const { index } = await first.load(await beginSession(repository), signal);
    expect(reads).toHaveLength(2);
    await transfer(others, createMemoryReader(seededBytes(100_000, 9)));
    const again = await first.load(await beginSession(repository), signal);
    expect(reads).toHaveLength(3);
    expect(again.index.shared).toBe(index.shared);
    expect(again.index.count()).toBeGreaterThan((await loaded(loader, repository)) - 1);
  });

  test("is loaded anew when an object of it was replaced: what is gone is stored again", async () => {
    const { store, repository, loader, dataPacks } = await stored();
    await store.remove(await names(store, "index/"));
    await store.remove(dataPacks.map((id) => packName(Buffer.from(id, "hex"))));
    const session = await beginSession(repository);
    const index = await loader.load(session, signal);
    const { recordKey, stats } = await transfer(repository, createMemoryReader(disk), {
      session,
      ...index,
    });
    expect(stats.bytesNew).toBe(disk.length);
    await restores(repository, recordKey);
  });

  test("is loaded anew when packs that no segment names may be gone with their session", async () => {
    const store = createMemoryObjectStore();
    await createTestRepository(store);
    let isBroken = true;
    const repository = await openTestRepository({
      ...store,
      put: async (key, bytes, options) => {
        if (isBroken && key.startsWith("index/")) {
          throw new Failure("storage.unreachable", { message: "away" });
        }
        await store.put(key, bytes, options);
      },
    });
    const loader = createChunkIndexLoader(repository, { logger: silentLogger });
    const failed = await beginSession(repository);
    const first = await loader.load(failed, signal);
    await expect(
      transfer(repository, createMemoryReader(disk), { session: failed, ...first }),
    ).rejects.toThrow("away");
    isBroken = false;
    // While its session is open its packs stay.
    expect(await loaded(loader, repository)).toBeGreaterThan(0);
    await failed.abort();
    await store.remove(await names(store, "packs/"));
    const session = await beginSession(repository);
    const index = await loader.load(session, signal);
    expect(index.index.count()).toBe(0);
    const { recordKey } = await transfer(repository, createMemoryReader(disk), {
      session,
      ...index,
    });
    await restores(repository, recordKey);
  });
});

test("a segment that names packs which are gone fails the transfer, and the next one does without it", async () => {
  const { store, repository, loader, dataPacks } = await stored();
  const [gone = ""] = dataPacks;
  await store.remove([packName(Buffer.from(gone, "hex"))]);
  const session = await beginSession(repository);
  const index = await loader.load(session, signal);
  let checkpoint: unknown;
  const options = {
    session,
    checkpointBytes: 500_000,
    saveCheckpoint: async (saved: Record<string, unknown>) => {
      checkpoint = saved;
    },
  };
  await expect(
    transfer(repository, createMemoryReader(disk), { ...options, ...index }),
  ).rejects.toSatisfy((error) => isFailure(error, "index.stale") && error.message.includes(gone));
  const { recordKey, stats } = await transfer(repository, createMemoryReader(disk), {
    ...options,
    checkpoint,
  });
  expect(stats.bytesNew).toBe(disk.length);
  await restores(repository, recordKey);
});

async function loaded(
  loader: {
    load: (session: Session, signal: AbortSignal) => Promise<{ index: { count(): number } }>;
  },
  repository: Repository,
): Promise<number> {
  return (await loader.load(await beginSession(repository), signal)).index.count();
}
