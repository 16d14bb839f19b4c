import { expect, test } from "vitest";
import { systemClock } from "../../ports/clock.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { createRepository, openRepository, type Repository } from "../repository.ts";
import { takeInventory } from "./inventory.ts";
import { flags } from "./object-table.ts";

const parts = { passphrase: "right", clock: systemClock, random: systemRandom };
const root = `points/a/p-j-1-${"ab".repeat(16)}`;
const pack = `packs/ab/${"ab".repeat(16)}`;

async function setUp(wrap: (store: ObjectStore) => ObjectStore): Promise<Repository> {
  const store = createMemoryObjectStore();
  await createRepository({ store, passphraseCost: { memoryKiB: 64, passes: 1 }, ...parts });
  for (const key of [root, pack, "other/thing"]) await store.put(key, Uint8Array.of(1, 2));
  return await openRepository({ store: wrap(store), ...parts });
}

const take = (repository: Repository) => takeInventory(repository, async () => undefined, {});

test("R28: a root that the first listing had and the second lacks, though it is there, stops everything", async () => {
  const repository = await setUp((store) => ({
    ...store,
    async *list(prefix, options) {
      for await (const head of store.list(prefix, options)) {
        if (prefix !== "points/" || head.key !== root) yield head;
      }
    },
  }));
  await expect(take(repository)).rejects.toMatchObject({
    code: "storage.unreachable",
    message: expect.stringContaining(root),
  });
});

test("one that was removed in between does not", async () => {
  const repository = await setUp((store) => ({
    ...store,
    async *list(prefix, options) {
      if (prefix === "points/") await store.remove([root]);
      yield* store.list(prefix, options);
    },
  }));
  const { roots, rootsBefore } = await take(repository);
  expect([roots.size, [...rootsBefore]]).toEqual([0, [root]]);
});

test("entries that a store gives twice count once, and what is not ours is counted by itself", async () => {
  const repository = await setUp((store) => ({
    ...store,
    async *list(prefix, options) {
      for await (const head of store.list(prefix, options)) yield* [head, head];
    },
  }));
  const { tables, stored, unknown, roots } = await take(repository);
  expect(tables.pack.count()).toBe(1);
  const row = tables.pack.find(Buffer.from("ab".repeat(16), "hex"));
  expect([tables.pack.has(row, flags.listed), tables.pack.sizeBytes(row)]).toEqual([true, 2]);
  expect([...roots]).toEqual([[root, 2]]);
  expect(unknown.names).toContain("other/thing");
  expect(stored.objects).toBeGreaterThan(3);
});
