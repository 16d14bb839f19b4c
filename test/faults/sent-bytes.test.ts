import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "../../mover/pipeline/memory-disk.ts";
import { collectNow, createTestClock, openAt } from "../../mover/pipeline/test-collect.ts";
import { seededBytes } from "../../mover/pipeline/test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  openTestRepository,
  restore,
  transfer,
  writePoint,
} from "../../mover/pipeline/test-repository.ts";
import { watchSentBytes } from "./sent-bytes.ts";

/** From the put of this number on nothing arrives: the process is dead, though what it sends is seen. */
function dyingAt(store: ObjectStore, number: number, applied: boolean): ObjectStore {
  let puts = 0;
  return {
    ...store,
    put: async (key, bytes, options) => {
      puts += 1;
      if (puts < number) return store.put(key, bytes, options);
      if (puts === number && applied) await store.put(key, bytes, options);
      throw new Failure("storage.unreachable", { message: "killed" });
    },
  };
}

const sizeBytes = 2_000_000;
/** The source changes while nobody reads it: after each kill other bytes lie where a pack was begun. */
function sourceAfter(kills: number): Uint8Array {
  const disk = seededBytes(sizeBytes, 3);
  disk.set(seededBytes(sizeBytes / 4, 40 + kills), (kills % 4) * (sizeBytes / 4));
  return disk;
}

test("R39: no pack id and no salt is ever used for two bodies, over kills in mid-pack, a source that changes, and resumes", async () => {
  const store = createMemoryObjectStore();
  const sent = watchSentBytes();
  await createTestRepository(sent.watch(store));
  const session = await beginSession(await openTestRepository(sent.watch(store)));
  let checkpoint: Record<string, unknown> | undefined;
  let kills = 0;
  let resumed = 0;
  // As the control plane keeps it: what a stage has done is done once.
  let done: string | undefined;
  const attempt = async (its: ObjectStore): Promise<string> => {
    const repository = await openTestRepository(sent.watch(its));
    const same = await repository.sessions.resume(session.sessionId, { alsoCommitted: true });
    if (checkpoint !== undefined) resumed += 1;
    const reader = createMemoryReader(sourceAfter(kills));
    done ??= await transferOnce(repository, reader, same);
    await writePoint(repository, newPoint(done), same);
    return done;
  };
  const transferOnce = async (
    repository: Repository,
    reader: DiskReader,
    same: Session,
  ): Promise<string> => {
    const { recordKey } = await transfer(repository, reader, {
      session: same,
      checkpointBytes: 300_000,
      saveCheckpoint: async (saved) => {
        checkpoint = JSON.parse(JSON.stringify(saved));
      },
      ...(checkpoint !== undefined && { checkpoint }),
    });
    return recordKey;
  };
  let recordKey: string | undefined;
  while (recordKey === undefined) {
    try {
      recordKey = await attempt(dyingAt(store, 1 + (kills % 7), kills % 2 === 0));
    } catch (error) {
      expect(error).toMatchObject({ code: "storage.unreachable" });
      kills += 1;
    }
    // What dies at each of the first seven puts gets no further than its last checkpoint: the last attempt is let through.
    if (kills === 28) recordKey = await attempt(store);
  }
  expect(kills).toBeGreaterThan(6);
  expect(resumed).toBeGreaterThan(3);
  const { packs, objects, repeated } = sent.seen();
  expect(repeated).toEqual([]);
  expect(packs).toBeGreaterThan(5);
  expect(objects).toBeGreaterThan(5);
  const repository = await openTestRepository(store);
  await restore(repository, recordKey, { sizeBytes });
  await collectNow(await openAt(sent.watch(store), createTestClock()));
  expect(sent.seen().repeated).toEqual([]);
});

test("the watch finds a pack id that is used twice", async () => {
  const sent = watchSentBytes();
  const store = sent.watch(createMemoryObjectStore());
  const pack = Buffer.alloc(200, 1);
  pack.writeUInt16LE(3, 10);
  await store.put("packs/01/a", pack);
  await store.put("packs/01/b", pack);
  expect(sent.seen().repeated).toEqual([]);
  pack[100] = 2;
  await store.put("packs/01/c", pack);
  expect(sent.seen().repeated).toHaveLength(1);
});
