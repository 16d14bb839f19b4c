import { beforeEach, expect, test } from "vitest";
import { systemClock } from "../../ports/clock.ts";
import { silentLogger } from "../../ports/logger.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { createRepository, type Repository } from "../repository.ts";
import type { CondemnedList } from "../session/condemned.ts";
import { takeInventory } from "./inventory.ts";
import {
  nothingRemoved,
  type Removal,
  type Remover,
  removeCondemned,
  removeNames,
} from "./remove-condemned.ts";

/** What only the last door holds back: what comes before it would have to be wrong as well. */
let store: ObjectStore;
let repository: Repository;
beforeEach(async () => {
  store = createMemoryObjectStore();
  repository = await createRepository({
    store,
    passphrase: "right",
    clock: systemClock,
    random: systemRandom,
    passphraseCost: { memoryKiB: 64, passes: 1 },
  });
});

const remover = (): Remover => ({
  repository,
  collector: {
    sessionId: "00".repeat(8),
    newId: () => Buffer.from(systemRandom(16)).toString("hex"),
    alive: async () => undefined,
    confirm: async () => undefined,
    end: async () => undefined,
  },
  onRemoved: () => undefined,
  logger: silentLogger,
  options: {},
});

async function keys(): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { key } of store.list("")) found.push(key);
  return found;
}

test("rule 10: names of no kind that is removed are refused, and nothing of their batch goes", async () => {
  const pack = `packs/00/${"00".repeat(16)}`;
  await store.put(pack, Uint8Array.of(1));
  await store.put("other", Uint8Array.of(1));
  const before = await keys();
  const [wrapping = ""] = before.filter((key) => key.startsWith("keys/"));
  for (const name of ["", "config", wrapping, "other", "packs/", "packs/00/", "../config"]) {
    const batch = [pack, name].map((its) => ({ name: its, sizeBytes: 1 }));
    await expect(removeNames(remover(), undefined, batch), name).rejects.toThrow();
    expect(await keys()).toEqual(before);
  }
  await removeNames(remover(), undefined, [{ name: pack, sizeBytes: 1 }]);
  expect(await keys()).toEqual(before.filter((key) => key !== pack));
});

test("what the last look keeps stays, and stays condemned; what is not there is no error", async () => {
  const id = (fill: string): string => fill.repeat(16);
  const rootKey = `points/a/p-j-1-${id("aa")}`;
  const goes = `points/a/q-j-1-${id("bb")}`;
  for (const key of [rootKey, goes]) await store.put(key, Uint8Array.of(1));
  const { condemned } = repository.sessions;
  const list: CondemnedList = {
    madeAt: 1,
    packs: [id("cc")],
    compacting: [],
    roots: [rootKey, goes],
    objects: [`disks/${id("dd")}`],
  };
  const name = await condemned.put(list);
  const removal: Removal = {
    ...remover(),
    inventory: await takeInventory(repository, async () => undefined, {}),
    lists: [{ name, list, waitedNames: [], waitingFor: [] }],
    isNeededRelocation: () => false,
    isKeptRoot: (key) => key === rootKey,
    keep: async () => undefined,
  };
  await removeCondemned(removal, nothingRemoved());
  expect((await keys()).filter((key) => key.startsWith("points/"))).toEqual([rootKey]);
  const left = await condemned.load();
  expect([[...left.roots], [...left.packs], left.names.includes(name)]).toEqual([
    [rootKey],
    [],
    false,
  ]);
});
