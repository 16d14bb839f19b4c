import { isFailure } from "@holdfast/shared/domain/failure";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { describe, expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes, writePieces } from "./test-data.ts";
import { beginSession, createTestRepository, restore, transfer } from "./test-repository.ts";

describe("resume", () => {
  test("from each checkpoint the transfer ends in the right disk and reads only the rest", async () => {
    const disk = writePieces(seededBytes(16_000_000, 5), [{ at: 1_000_000, length: 9, seed: 1 }]);
    disk.fill(0, 2_000_000, 2_600_000);
    const repository = await createTestRepository(createMemoryObjectStore());
    const checkpoints: Record<string, unknown>[] = [];
    const saveCheckpoint = async (checkpoint: Record<string, unknown>): Promise<void> => {
      checkpoints.push(JSON.parse(JSON.stringify(checkpoint)));
    };
    const session = await beginSession(repository);
    const whole = { session, saveCheckpoint, checkpointBytes: 300_000 };
    await transfer(repository, createMemoryReader(disk), whole);
    expect(checkpoints.length).toBeGreaterThan(3);
    let least = disk.length;
    for (const checkpoint of checkpoints) {
      let read = 0;
      const onRead = (_: number, length: number): void => {
        read += length;
      };
      const { recordKey, stats } = await transfer(
        repository,
        createMemoryReader(disk, { onRead }),
        { session, checkpoint },
      );
      least = Math.min(least, read);
      expect(stats.bytesDone).toBe(disk.length);
      const target = await restore(repository, recordKey, { sizeBytes: disk.length });
      expect(Buffer.compare(target.bytes, disk)).toBe(0);
    }
    expect(least).toBeLessThan(disk.length - 800_000);
  });

  test("a run that is stopped at a checkpoint goes on from it", async () => {
    const disk = seededBytes(6_000_000, 6);
    const repository = await createTestRepository(createMemoryObjectStore());
    const abort = new AbortController();
    const session = await beginSession(repository);
    let checkpoint: unknown;
    const stopped = transfer(repository, createMemoryReader(disk), {
      session,
      signal: abort.signal,
      checkpointBytes: 1_000_000,
      saveCheckpoint: async (saved) => {
        checkpoint = saved;
        abort.abort();
      },
    });
    await expect(stopped).rejects.toSatisfy((error) => isFailure(error, "cancelled"));
    const { recordKey, stats } = await transfer(repository, createMemoryReader(disk), {
      session: await repository.sessions.resume(session.sessionId),
      checkpoint,
    });
    expect(stats.bytesRead).toBeLessThan(2 * disk.length - 500_000);
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, disk)).toBe(0);
  });

  test("a checkpoint of another disk or session, or one that was changed, is not used", async () => {
    const disk = seededBytes(1_000_000, 5);
    const repository = await createTestRepository(createMemoryObjectStore());
    const checkpoints: Record<string, unknown>[] = [];
    const session = await beginSession(repository);
    await transfer(repository, createMemoryReader(disk), {
      session,
      checkpointBytes: 300_000,
      saveCheckpoint: async (checkpoint) => {
        checkpoints.push(checkpoint);
      },
    });
    const last = checkpoints.at(-1);
    const other = seededBytes(1_000_000, 6);
    const cases = [
      { session, diskKey: "vdb", checkpoint: last },
      { checkpoint: last },
      { session, checkpoint: { ...last, inline: Buffer.alloc(300).toString("base64") } },
      { checkpoint: { v: 9 } },
    ];
    for (const options of cases) {
      const { recordKey } = await transfer(repository, createMemoryReader(other), options);
      const target = await restore(repository, recordKey, { sizeBytes: other.length });
      expect(Buffer.compare(target.bytes, other)).toBe(0);
    }
  });

  test("an incremental whose source lied is never gone on with, whatever dies in between", async () => {
    const disk = seededBytes(6_000_000, 5);
    const repository = await createTestRepository(createMemoryObjectStore());
    const { recordKey: previous } = await transfer(repository, createMemoryReader(disk));
    disk[700_000] = (disk[700_000] ?? 0) ^ 1;
    const extents = [{ offset: 0, length: disk.length, kind: "unchanged" as const }];
    let checkpoint: unknown;
    const common = {
      session: await beginSession(repository),
      previous,
      checkpointBytes: 100_000,
      saveCheckpoint: async (saved: Record<string, unknown>) => {
        checkpoint = JSON.parse(JSON.stringify(saved));
      },
    };
    const incremental = (sampleShare: number, more = {}) =>
      transfer(repository, createMemoryReader(disk, { extents }), {
        ...common,
        mode: "incremental",
        sampleShare,
        ...more,
      });
    const isUnknown = (error: unknown): boolean => isFailure(error, "changes.unknown");
    await expect(incremental(1)).rejects.toSatisfy(isUnknown);
    // The mover died before the full read had a checkpoint: no sample is needed to know.
    await expect(incremental(0, { checkpoint })).rejects.toSatisfy(isUnknown);
    // It died in the middle of the full read.
    const full = (more = {}) =>
      transfer(repository, createMemoryReader(disk), { ...common, mode: "full", ...more });
    await full({ checkpoint });
    expect(checkpoint).toMatchObject({ mode: "full" });
    await expect(incremental(0, { checkpoint })).rejects.toSatisfy(isUnknown);
    const { recordKey } = await full({ checkpoint });
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, disk)).toBe(0);
  });

  test("when even zeros cannot be believed, everything is read", async () => {
    const disk = seededBytes(500_000, 5);
    const repository = await createTestRepository(createMemoryObjectStore());
    const extents = [{ offset: 0, length: disk.length, kind: "zero" as const }];
    const lying = createMemoryReader(disk, { extents });
    let checkpoint: unknown;
    const isUnknown = (error: unknown): boolean => isFailure(error, "changes.unknown");
    const saveCheckpoint = async (saved: Record<string, unknown>): Promise<void> => {
      checkpoint = saved;
    };
    await expect(transfer(repository, lying, { sampleShare: 1, saveCheckpoint })).rejects.toSatisfy(
      isUnknown,
    );
    // The mover died before everything was read: no sample is needed to know.
    await expect(
      transfer(repository, lying, { mode: "full", sampleShare: 0, checkpoint }),
    ).rejects.toSatisfy(isUnknown);
    const { recordKey } = await transfer(repository, lying, { mode: "all" });
    const target = await restore(repository, recordKey, { sizeBytes: disk.length });
    expect(Buffer.compare(target.bytes, disk)).toBe(0);
  });

  test("a long list of finished leaves moves into sealed objects", async () => {
    const disk = seededBytes(512 * 65_536, 5);
    const store = createMemoryObjectStore();
    const repository = await createTestRepository(store);
    const tiny = { ...repository, settings: { ...repository.settings, leafBytes: 65_536 } };
    let largest = 0;
    let last: unknown;
    await transfer(tiny, createMemoryReader(disk), {
      checkpointBytes: 4_000_000,
      saveCheckpoint: async (checkpoint) => {
        last = checkpoint;
        largest = Math.max(largest, JSON.stringify(checkpoint).length);
      },
    }).catch(() => undefined);
    expect(largest).toBeLessThan(100_000);
    expect(last).toMatchObject({ parts: [expect.stringMatching(/^checkpoints\//)] });
  });
});
