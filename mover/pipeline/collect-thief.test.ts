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
} from "./test-collect.ts";
import { createTestRepository } from "./test-repository.ts";

/** T03: who may run collections, and what they may cost at most. */
const disks = [diskOf(1, 2, 3), diskOf(1, 2, 4), diskOf(5, 6, 7)];

async function setUp(store: ObjectStore) {
  await createTestRepository(store);
  const repository = await openAt(store, createTestClock());
  const expected = new Map<string, Uint8Array>();
  const roots: string[] = [];
  for (const [at, disk] of disks.entries()) {
    roots.push(await backUp(repository, { vm: "a", pointId: `p${at}`, disk }));
    expected.set(`a/p${at}`, disk);
  }
  return { repository, expected, roots };
}

test("T03: packs, roots, records and metadata are removed only after a list has named them, and no other names go", async () => {
  const plain = createMemoryObjectStore();
  const removed: string[] = [];
  const store: ObjectStore = {
    ...plain,
    remove: async (keys, options) => {
      removed.push(...keys);
      await plain.remove(keys, options);
    },
  };
  const { repository, expected, roots } = await setUp(store);
  const named = new Set<string>();
  const { condemned } = repository.sessions;
  const watched = {
    ...repository,
    sessions: {
      ...repository.sessions,
      condemned: {
        ...condemned,
        put: async (...[list, options]: Parameters<typeof condemned.put>) => {
          for (const id of list.packs) named.add(`packs/${id.slice(0, 2)}/${id}`);
          for (const name of [...list.roots, ...list.objects]) named.add(name);
          return await condemned.put(list, options);
        },
      },
    },
  };
  await collectNow(watched, { expire: roots.slice(0, 1) });
  const listed = removed.filter((key) => /^(packs|points|disks|metadata)\//.test(key));
  expect(listed.length).toBeGreaterThan(3);
  expect(listed.filter((key) => !named.has(key))).toEqual([]);
  const rest = removed.filter((key) => !listed.includes(key));
  expect(rest.filter((key) => !/^(sessions|condemned|index)\//.test(key))).toEqual([]);
  expected.delete("a/p0");
  expect((await restoreAll(repository, expected)).length).toBe(2);
});

test("T03: a wish to remove all points, or half of what is stored, ends at the brake; nothing is gone", async () => {
  const store = createMemoryObjectStore();
  const { repository, expected, roots } = await setUp(store);
  const before = (await keysOf(store)).filter((key) => /^(packs|points|disks)\//.test(key));
  for (const expire of [roots, roots.slice(0, 2)]) {
    for (const name of [undefined, 0.4]) {
      const run = collectNow(repository, { expire, allowShare: name });
      await expect(run).rejects.toMatchObject({ code: "collect.brake" });
    }
  }
  expect((await keysOf(store)).filter((key) => before.includes(key))).toEqual(before);
  expect((await restoreAll(repository, expected)).length).toBe(3);
});
