import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
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
} from "../../mover/pipeline/test-collect.ts";
import { createTestRepository } from "../../mover/pipeline/test-repository.ts";

/** Full from the put of this number on, for this process. */
function fullFrom(
  store: ObjectStore,
  number: number,
): { store: ObjectStore; wasFull: () => boolean } {
  let puts = 0;
  let wasFull = false;
  return {
    wasFull: () => wasFull,
    store: {
      ...store,
      put: async (key, bytes, options) => {
        puts += 1;
        if (puts < number) return store.put(key, bytes, options);
        wasFull = true;
        throw new Failure("storage.no-space", { message: "no space left on device" });
      },
    },
  };
}

test("R38: no space at any put of a backup is a clean failure; what it left is freed, every point restores, the next backup works", async () => {
  const first = diskOf(1, 2, 3);
  const second = diskOf(1, 9, 8, 7);
  const both = new Map([
    ["a/p1", first],
    ["a/p2", second],
    ["a/p3", second],
  ]);
  let adopted = 0;
  for (let number = 1; ; number += 1) {
    const store = createMemoryObjectStore();
    const clock = createTestClock();
    await createTestRepository(store);
    await backUp(await openAt(store, clock), { vm: "a", pointId: "p1", disk: first });
    const before = await keysOf(store, "packs/");
    const full = fullFrom(store, number);
    const [run] = await Promise.allSettled([
      openAt(full.store, clock).then((its) =>
        backUp(its, { vm: "a", pointId: "p2", disk: second }),
      ),
    ]);
    if (!full.wasFull()) {
      expect(run.status).toBe("fulfilled");
      expect(number).toBeGreaterThan(7);
      expect(adopted).toBe(1);
      return;
    }
    expect(run).toMatchObject({ status: "rejected", reason: { code: "storage.no-space" } });
    const repository = await openAt(store, clock);
    expect(await restoreAll(repository, new Map([["a/p1", first]]))).toEqual(["a/p1"]);
    // The session could not say that it has ended: its silence does.
    clock.advance(3_600_000);
    await collectNow(repository, { waitMs: 3_600_000 });
    // Without its end alone it was whole, and is adopted: somebody may have seen it.
    const isAdopted = (await keysOf(store, "points/")).length > 1;
    if (!isAdopted) expect(await keysOf(store, "packs/"), `from put ${number} on`).toEqual(before);
    adopted += isAdopted ? 1 : 0;
    await backUp(repository, { vm: "a", pointId: "p3", disk: second });
    const some = ["a/p1", ...(isAdopted ? ["a/p2"] : []), "a/p3"];
    expect(await restoreAll(repository, both)).toEqual(some);
  }
});

test("R38: a repository without space is restored from, and creating one where there is none fails cleanly", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const disk = diskOf(4, 5);
  await backUp(await openAt(store, createTestClock()), { vm: "a", pointId: "p1", disk });
  const full = fullFrom(store, 1);
  const repository = await openAt(full.store, createTestClock());
  expect(await restoreAll(repository, new Map([["a/p1", disk]]))).toEqual(["a/p1"]);
  for (const number of [1, 2]) {
    const empty = createMemoryObjectStore();
    const created = createTestRepository(fullFrom(empty, number).store);
    await expect(created).rejects.toSatisfy((error) => isFailure(error, "storage.no-space"));
    // Without its config there is no repository: the next try makes one.
    await createTestRepository(empty);
  }
});
