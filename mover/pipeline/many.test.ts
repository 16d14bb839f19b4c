import type { Extent } from "@holdfast/shared/domain/extent";
import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  restore,
  smallSettings,
  transfer,
} from "./test-repository.ts";

describe("much at once", () => {
  test("transfers with threads share one index and don't disturb each other", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const signal = new AbortController().signal;
    const loader = createChunkIndexLoader(repository, { logger: silentLogger });
    const { index } = await loader.load(await beginSession(repository), signal);
    const disks = [1, 2, 1].map((seed) => {
      const disk = seededBytes(5_000_000, seed);
      disk.set(seededBytes(700_000, 9), 3_000_000);
      return disk;
    });
    const done = await Promise.all(
      disks.map((disk, number) =>
        transfer(repository, createMemoryReader(disk), {
          diskKey: `vd${number}`,
          index,
          workers: 2,
          checkpointBytes: 500_000,
        }),
      ),
    );
    for (const [number, { recordKey }] of done.entries()) {
      const disk = disks[number] ?? new Uint8Array(0);
      const target = await restore(repository, recordKey, { sizeBytes: disk.length, workers: 2 });
      expect(Buffer.compare(target.bytes, disk)).toBe(0);
    }
    const again = await transfer(repository, createMemoryReader(disks[1] ?? new Uint8Array(0)), {
      diskKey: "vd9",
      index,
    });
    expect(again.stats.bytesNew).toBe(0);
  });

  test("leaves that wait for open packs are stored before there are too many of them", async () => {
    const repository = await createRepository({
      store: createMemoryObjectStore(),
      passphrase: "p",
      clock: systemClock,
      random: systemRandom,
      settings: { ...smallSettings, leafBytes: 65_536, packBytes: 64 * 1024 * 1024 },
      passphraseCost: { memoryKiB: 64, passes: 1 },
    });
    const disk = seededBytes(600 * 65_536, 3);
    for (const workers of [0, 2]) {
      const { recordKey } = await transfer(repository, createMemoryReader(disk), { workers });
      const target = await restore(repository, recordKey, { sizeBytes: disk.length });
      expect(Buffer.compare(target.bytes, disk)).toBe(0);
    }
    let packs = 0;
    for await (const _ of repository.store.list("packs/")) packs += 1;
    expect(packs).toBeGreaterThan(8);
  });

  test("a long chain of incrementals: every point of it restores", async () => {
    const repository = await createTestRepository(createMemoryObjectStore());
    const disk = seededBytes(1_200_000, 3);
    const points: { recordKey: string; bytes: Uint8Array }[] = [];
    let previous: string | undefined;
    for (let step = 0; step < 12; step += 1) {
      const at = (step * 333_667) % 1_100_000;
      const length = 1 + ((step * 7919) % 90_000);
      if (step % 4 === 3) disk.fill(0, at, at + length);
      else disk.set(seededBytes(length, 20 + step), at);
      const extents: Extent[] = [
        { offset: 0, length: at, kind: "unchanged" as const },
        { offset: at, length, kind: step % 4 === 3 ? ("zero" as const) : ("data" as const) },
        { offset: at + length, length: disk.length - at - length, kind: "unchanged" as const },
      ].filter((extent) => extent.length > 0);
      const { recordKey } = await transfer(repository, createMemoryReader(disk, { extents }), {
        previous,
        sampleShare: 1,
      });
      points.push({ recordKey, bytes: Uint8Array.from(disk) });
      previous = recordKey;
    }
    for (const { recordKey, bytes } of points) {
      const target = await restore(repository, recordKey, { sizeBytes: bytes.length });
      expect(Buffer.compare(target.bytes, bytes)).toBe(0);
    }
  });
});
