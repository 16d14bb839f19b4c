import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { emptyLeafTable } from "@holdfast/shared/repository/extent-map/disk-record";
import { decodeLeaf, encodeLeaf, leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import { writeLeaves } from "./leaf-writer.ts";
import { createMemoryReader, createMemoryWriter } from "./memory-disk.ts";
import { restoreDisk } from "./restore-disk.ts";
import { seededBytes, writePieces } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  openTestRepository,
  restore,
  transfer,
  writePoint,
} from "./test-repository.ts";

/** 600 000 bytes with a hole in the middle, as one committed point. */
async function stored() {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const disk = writePieces(new Uint8Array(600_000), [
    { at: 0, length: 300_000, seed: 1 },
    { at: 400_000, length: 200_000, seed: 2 },
  ]);
  const { recordKey } = await transfer(repository, createMemoryReader(disk));
  const { rootKey } = await writePoint(repository, newPoint(recordKey));
  const names: string[] = [];
  for await (const { key } of store.list("")) names.push(key);
  return { store, repository, disk, recordKey, rootKey, names };
}

async function copyWith(
  store: ObjectStore,
  names: readonly string[],
  damaged: string,
  bytes: Uint8Array | undefined,
): Promise<ObjectStore> {
  const copy = createMemoryObjectStore();
  for (const name of names) {
    const body = name === damaged ? bytes : await store.get(name);
    if (body !== undefined) await copy.put(name, body);
  }
  return copy;
}

/** The whole way of a restore; every byte that reaches the target must be right, whatever is damaged. */
async function restoreAll(store: ObjectStore, rootKey: string, disk: Uint8Array): Promise<void> {
  const repository = await openTestRepository(store);
  const point = await repository.readPoint(rootKey);
  const recordKey = point.disks[0]?.recordKey ?? "";
  const writer = createMemoryWriter(disk.length, 0xaa);
  const checking = {
    ...writer,
    write: async (offset: number, data: Uint8Array) => {
      expect(Buffer.compare(data, disk.subarray(offset, offset + data.length))).toBe(0);
      await writer.write(offset, data);
    },
  };
  await restoreDisk({
    repository,
    recordKey,
    writer: checking,
    onProgress: () => undefined,
    signal: new AbortController().signal,
    workers: 0,
    logger: silentLogger,
  });
  expect(Buffer.compare(writer.bytes, disk)).toBe(0);
}

const named = new Set([
  "object.corrupt",
  "object.not-found",
  "repository.not-found",
  "repository.key-wrong",
  "repository.format-unknown",
  "repository.epoch-unknown",
]);

describe("damage", () => {
  test("a flipped, cut or missing object of any kind ends in a failure that names it, or harms nothing", async () => {
    const { store, rootKey, disk, names } = await stored();
    const kinds = new Set(names.map((name) => name.split("/")[0]));
    expect([...kinds].sort()).toEqual([
      "config",
      "disks",
      "index",
      "keys",
      "metadata",
      "packs",
      "points",
      "sessions",
    ]);
    let detected = 0;
    for (const name of names) {
      const bytes = await store.get(name);
      const damages: (Uint8Array | undefined)[] = [
        undefined,
        bytes.subarray(0, 0),
        bytes.subarray(0, bytes.length - 1),
        bytes.subarray(0, bytes.length >> 1),
      ];
      for (let step = 0; step < 24; step += 1) {
        const flipped = Uint8Array.from(bytes);
        const at = step < 16 ? step * 5 : Math.floor((bytes.length * (step - 15)) / 9);
        const place = Math.min(at, bytes.length - 1);
        flipped[place] = (flipped[place] ?? 0) ^ (1 << (step % 8));
        damages.push(flipped);
      }
      for (const damage of damages) {
        const copy = await copyWith(store, names, name, damage);
        try {
          await restoreAll(copy, rootKey, disk);
        } catch (error) {
          expect(error).toBeInstanceOf(Failure);
          expect(isFailure(error) && named.has(error.code) ? "" : error).toBe("");
          detected += 1;
          continue;
        }
        // Only what a restore needs is looked at by a restore: index and sessions never, a pack's footer and header neither.
        expect(name).toMatch(/^(index|packs|sessions)\//);
      }
    }
    expect(detected).toBeGreaterThan(100);
  });

  test("objects swapped or renamed do not open", async () => {
    const { store, repository, recordKey, rootKey, disk, names } = await stored();
    const other = await transfer(repository, createMemoryReader(seededBytes(600_000, 8)));
    const copy = await copyWith(store, names, recordKey, await store.get(other.recordKey));
    await expect(restoreAll(copy, rootKey, disk)).rejects.toThrow(/authenticate/);
    const planted = rootKey.replace("point-1", "point-2");
    await store.put(planted, await store.get(rootKey));
    const listed: string[] = [];
    const unreadable: string[] = [];
    const onUnreadable = ({ key }: { readonly key: string }): void => {
      unreadable.push(key);
    };
    for await (const point of repository.listPoints({ onUnreadable })) listed.push(point.rootKey);
    expect({ listed, unreadable }).toEqual({ listed: [rootKey], unreadable: [planted] });
  });

  test("a restore needs no index", async () => {
    const { store, rootKey, disk, names } = await stored();
    const index = names.filter((name) => name.startsWith("index/"));
    expect(index.length).toBeGreaterThan(0);
    await store.remove(index);
    await restoreAll(store, rootKey, disk);
  });

  test("a writer that misplaces one chunk is caught by the digest before the target sees it", async () => {
    const { repository, recordKey, disk } = await stored();
    const record = await repository.readDiskRecord(recordKey);
    const ref = record.leaves.get(0);
    if (ref === undefined || ref === "hole") throw new Error("leaf 0 has data");
    const lengthBytes = record.leafBytes;
    const loaded = await createLeafStore(repository).read(ref, {
      index: 0,
      offset: 0,
      lengthBytes,
    });
    const entries = [...leafEntries(loaded.leaf)];
    const [first, second] = entries;
    if (first === undefined || second === undefined) throw new Error("leaf 0 has two chunks");
    // Every chunk is right and every tag is good; two of them change places.
    const mutant = encodeLeaf({
      index: 0,
      lengthBytes,
      entries: [{ ...second, offset: 0 }, { ...first, offset: second.length }, ...entries.slice(2)],
    });
    expect(decodeLeaf(mutant).count).toBe(entries.length);
    const leaf = { index: 0, ...mutant, digest: ref.digest };
    const signal = new AbortController().signal;
    const session = await beginSession(repository);
    const [written] = (await writeLeaves(repository, session, [leaf], signal)).refs;
    const leaves = emptyLeafTable(record.sizeBytes, record.leafBytes);
    for (let index = 0; index < leaves.count; index += 1) {
      const kept = record.leaves.get(index);
      if (kept !== undefined) leaves.set(index, kept);
    }
    if (written !== undefined) leaves.set(0, written.ref);
    const bad = await repository.writeDiskRecord(session, { ...record, leaves });
    await expect(restore(repository, bad, { sizeBytes: disk.length })).rejects.toThrow(
      /places chunks elsewhere/,
    );
  });

  test("a record that is not the one of the point is refused", async () => {
    const { repository, recordKey, disk } = await stored();
    const attempt = restoreDisk({
      repository,
      recordKey,
      digest: "0".repeat(64),
      writer: createMemoryWriter(disk.length, 0),
      onProgress: () => undefined,
      signal: new AbortController().signal,
      workers: 0,
      logger: silentLogger,
    });
    await expect(attempt).rejects.toSatisfy((error) => isFailure(error, "verification.failed"));
  });

  test("a target that is too small is refused", async () => {
    const { repository, recordKey } = await stored();
    await expect(restore(repository, recordKey, { sizeBytes: 599_999 })).rejects.toSatisfy(
      (error) => isFailure(error, "target.refused"),
    );
  });
});
