import { beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "../../ports/logger.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import type { RepositorySecrets } from "../keys/secrets.ts";
import { createObjects } from "../objects.ts";
import {
  type CondemnedList,
  type CondemnedLists,
  createCondemnedLists,
  decodeCondemned,
  encodeCondemned,
} from "./condemned.ts";
import { createSignedNames } from "./signed-name.ts";

const secrets: RepositorySecrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const id = (fill: string): string => fill.repeat(16);
const listOf = (...packs: readonly string[]): CondemnedList => ({
  madeAt: 7,
  packs: packs.map(id),
  compacting: [],
  roots: [],
  objects: [],
});

function listsAt(store: ObjectStore): CondemnedLists {
  const objects = createObjects({ store, secrets, random: systemRandom });
  const names = createSignedNames(secrets, systemRandom);
  return createCondemnedLists({ store, objects, names, logger: silentLogger });
}

let store: ObjectStore;
beforeEach(() => {
  store = createMemoryObjectStore();
});

describe("a list that is replaced while it is read", () => {
  test("is looked for again: what replaces it is never missed", async () => {
    const lists = listsAt(store);
    const long = await lists.put(listOf("aa", "bb"));
    let isReplaced = false;
    // Listed already, but not read yet.
    const reader = listsAt({
      ...store,
      get: async (key, options) => {
        if (!isReplaced && key === long) {
          isReplaced = true;
          await lists.put(listOf("bb"));
          await store.remove([long]);
        }
        return await store.get(key, options);
      },
    });
    expect([...(await reader.load()).packs]).toEqual([id("bb")]);
    expect(isReplaced).toBe(true);
  });

  test("one that the store lists for ever and does not have is an error, not an empty list", async () => {
    const name = await listsAt(store).put(listOf("aa"));
    const forgetful: ObjectStore = {
      ...store,
      async *list() {
        yield { key: name, sizeBytes: 1 };
      },
    };
    await store.remove([name]);
    await expect(listsAt(forgetful).load()).rejects.toMatchObject({ code: "storage.unreachable" });
  });
});

test("whom a list waits for comes back; of another list, or without one, nothing does", async () => {
  const lists = listsAt(store);
  const [first, second] = [await lists.put(listOf("aa")), await lists.put(listOf("bb"))];
  expect(await lists.waited(first)).toBe(undefined);
  const note = await lists.putWaited(first, ["00112233aabbccdd"]);
  const more = await lists.putWaited(first, []);
  expect(await lists.waited(second)).toBe(undefined);
  const waited = await lists.waited(first);
  expect([waited?.sessionIds, [...(waited?.names ?? [])].sort()]).toEqual([
    ["00112233aabbccdd"],
    [note, more].sort(),
  ]);
  expect(await lists.orphanedNotes()).toEqual([]);
  await store.remove([first]);
  expect([...(await lists.orphanedNotes())].sort()).toEqual([note, more].sort());
  await expect(lists.waited(note)).rejects.toMatchObject({ code: "input.invalid" });
});

test("a list comes back as it was put, and no cut or longer one does", () => {
  const list: CondemnedList = {
    madeAt: 9,
    packs: [id("aa")],
    compacting: [id("bb"), id("cc")],
    roots: ["points/a/p-j-1-x"],
    objects: ["disks/1", "metadata/2"],
  };
  const bytes = encodeCondemned(list);
  expect(decodeCondemned(bytes)).toEqual(list);
  for (let length = 0; length < bytes.length; length += 1) {
    expect(() => decodeCondemned(bytes.subarray(0, length))).toThrow();
  }
  expect(() => decodeCondemned(Buffer.concat([bytes, Uint8Array.of(0)]))).toThrow();
  expect(() => encodeCondemned(listOf("a"))).toThrow(/not 16 bytes/);
});
