import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import {
  backUp,
  collectNow,
  createTestClock,
  diskOf,
  keysOf,
  openAt,
  restoreAll,
  transferIn,
} from "./test-collect.ts";
import { beginSession, createTestRepository, newPoint } from "./test-repository.ts";

const disk = diskOf(1, 2, 3);
const other = diskOf(8, 9);

test("what is committed while a run waits is marked before anything goes: the packs that it took up stay", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const clock = createTestClock();
  const repository = await openAt(store, clock);
  await backUp(repository, { vm: "b", pointId: "p0", disk: other });
  // Stored by a backup that failed: garbage, but in the index, where the next one finds it.
  const failed = await beginSession(repository);
  await transferIn(repository, failed, undefined, disk);
  await failed.abort();
  const session = await beginSession(repository, { silenceSeconds: 3600 });
  const recordKey = await transferIn(repository, session, undefined, disk);
  const packs = await keysOf(store, "packs/");

  let isCommitted = false;
  const waiting = {
    ...clock,
    sleep: async (delayMs: number, signal?: AbortSignal) => {
      if (!isCommitted) {
        isCommitted = true;
        expect(await keysOf(store, "condemned/list-")).toHaveLength(1);
        const point = newPoint(recordKey, { vmKey: "a", pointId: "p1" });
        await repository.writePoint(session, point);
      }
      await clock.sleep(delayMs, signal);
    },
  };
  const report = await collectNow(await openAt(store, waiting), { waitMs: 600_000 });
  expect(isCommitted).toBe(true);
  expect(report.state).toBe("done");
  expect(report.reprieved).toBeGreaterThan(0);
  expect(packs.length).toBeGreaterThan(2);
  const all = new Map([
    ["a/p1", disk],
    ["b/p0", other],
  ]);
  expect(await restoreAll(repository, all)).toHaveLength(2);
});
