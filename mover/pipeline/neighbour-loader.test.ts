import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { mergeIndex } from "@holdfast/shared/repository/index/merge-index";
import { createRepository, type Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeAll, describe, expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import { beginSession, passphrase, restore, smallSettings, transfer } from "./test-repository.ts";

const disk = seededBytes(32 * 2 ** 20, 5);
const indexBytesMax = 40_000;

/** Backs the disk up as one that the repository has no point of, and says how much of it was stored again. */
async function storedAgain(repository: Repository, o: { prefetch: boolean }): Promise<number> {
  const signal = new AbortController().signal;
  const loader = createChunkIndexLoader(repository, { logger: silentLogger, indexBytesMax });
  const session = await beginSession(repository);
  const { prefetch, ...index } = await loader.load(session, signal);
  expect(index.index.hookBits).toBeGreaterThan(0);
  const done = await transfer(repository, createMemoryReader(disk), {
    session,
    ...index,
    ...(o.prefetch && { prefetch }),
  });
  const { bytes } = await restore(repository, done.recordKey, { sizeBytes: disk.length });
  expect(Buffer.compare(bytes, disk)).toBe(0);
  return done.stats.bytesNew / disk.length;
}

describe("a repository whose index outgrew its memory", () => {
  let repository: Repository;

  beforeAll(async () => {
    repository = await createRepository({
      store: createMemoryObjectStore(),
      passphrase,
      clock: systemClock,
      random: systemRandom,
      settings: { ...smallSettings, packBytes: 4 * 2 ** 20 },
      passphraseCost: { memoryKiB: 64, passes: 1 },
    });
    await transfer(repository, createMemoryReader(disk));
  });

  test("still finds most of what is stored, by the packs of the hooks that it knows", async () => {
    expect(await storedAgain(repository, { prefetch: false })).toBeGreaterThan(0.6);
    expect(await storedAgain(repository, { prefetch: true })).toBeLessThan(0.5);
  });

  test("loads only the shards that have hooks", async () => {
    const { newId, objects } = await beginSession(repository);
    await mergeIndex({ ...repository, objects, newId: () => toHex(newId()), shardChunks: 10 });
    const read: string[] = [];
    const watching: Repository = {
      ...repository,
      objects: {
        ...repository.objects,
        get: (name, type, options) => {
          if (type === "index-segment") read.push(name);
          return repository.objects.get(name, type, options);
        },
      },
    };
    expect(await storedAgain(watching, { prefetch: true })).toBeLessThan(0.6);
    const shards: string[] = [];
    for await (const { key } of repository.store.list("index/")) shards.push(key);
    expect(shards.length).toBeGreaterThan(100);
    expect(read.length).toBeGreaterThan(0);
    expect(read.length).toBeLessThan(shards.length / 4);
  });
});
