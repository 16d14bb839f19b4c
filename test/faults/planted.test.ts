import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import {
  openRepository,
  openRepositoryKeys,
  type Repository,
} from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeAll, describe, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  copyStore,
  createTestClock,
  diskOf,
  keysOf,
  openAt,
  restoreAll,
} from "../../mover/pipeline/test-collect.ts";
import { createTestRepository, passphrase } from "../../mover/pipeline/test-repository.ts";
import { verify } from "../../mover/pipeline/test-verify.ts";

/** T26: a forger who may write to the bucket and has no key. T06: its operator, who may also put back what was there once. */
const first = diskOf(1, 2, 3);
const second = diskOf(1, 9, 3);
const all = new Map([
  ["a/p1", first],
  ["a/p2", second],
]);
let base: ObjectStore;
let foreign: ObjectStore;
let yesterday: ObjectStore;

beforeAll(async () => {
  base = createMemoryObjectStore();
  await createTestRepository(base);
  const repository = await openAt(base, createTestClock());
  await backUp(repository, { vm: "a", pointId: "p1", disk: first });
  yesterday = await copyStore(base);
  await backUp(repository, { vm: "a", pointId: "p2", disk: second });
  // Another repository, of which the forger has a key: all that he seals there is well-formed.
  foreign = createMemoryObjectStore();
  await createTestRepository(foreign);
  await backUp(await openAt(foreign, createTestClock()), { vm: "b", pointId: "q", disk: first });
});

const hex = (digits: number): string => "0123456789abcdef".repeat(4).slice(0, digits);
/** A name of the format in every folder, none of which is taken. */
const names: readonly string[] = [
  `packs/01/${hex(32)}`,
  `index/${hex(32)}`,
  `index/${hex(32)}-4-a`,
  `disks/${hex(32)}`,
  `points/a/p2-job-p2-9-${hex(32)}`,
  `points/b/q-job-q-1-${hex(32)}`,
  `metadata/${hex(32)}`,
  `checkpoints/${hex(32)}`,
  `sessions/${hex(16)}/start-${hex(48)}`,
  `sessions/${hex(16)}/end-${hex(16)}-${hex(48)}`,
  `sessions/${hex(16)}/fence-${hex(48)}`,
  `condemned/list-${hex(48)}`,
  `condemned/seen-${hex(48)}`,
  `relocations/${hex(32)}-${hex(32)}`,
  `damaged/${hex(32)}`,
  `verified/${hex(32)}`,
  `keys/wrapping-${hex(32)}`,
  `keys/epoch-0002-${hex(32)}`,
  "keys/other",
  "new-folder/thing",
];

/** The body that a forger would put there: nothing, noise, the same kind of another repository, another object of this one. */
async function bodyFor(name: string, what: (typeof bodies)[number]): Promise<Uint8Array> {
  if (what === "nothing") return new Uint8Array(0);
  if (what === "noise") return Uint8Array.from({ length: 300 }, (_, at) => (at * 89) & 0xff);
  const from = what === "foreign" ? foreign : base;
  const folder = `${name.split("/")[0]}/`;
  const [like] = await keysOf(from, folder);
  return await from.get(like ?? "config");
}
const bodies = ["nothing", "noise", "foreign", "replayed"] as const;

async function everythingWorks(repository: Repository): Promise<void> {
  expect((await restoreAll(repository, all)).slice().sort()).toEqual([...all.keys()]);
  const disk = diskOf(1, 9, 8);
  const rootKey = await backUp(repository, { vm: "a", pointId: "p3", disk });
  const more = new Map([...all, ["a/p3", disk] as const]);
  await collectNow(repository);
  expect((await restoreAll(repository, more)).length).toBe(3);
  await collectNow(repository, { expire: [rootKey] });
  expect((await restoreAll(repository, all)).slice().sort()).toEqual([...all.keys()]);
}

/** In every folder at once: whatever stops on one of them stops here. */
async function plant(what: (typeof bodies)[number]): Promise<ObjectStore> {
  const store = await copyStore(base);
  for (const name of names) await store.put(name, await bodyFor(name, what));
  return store;
}

describe("T26: what a forger plants in every folder", () => {
  test.each(bodies)("is ignored, with a body of %s", async (what) => {
    await everythingWorks(await openAt(await plant(what), createTestClock()));
  });

  test.each(bodies)(
    "is named by verify, gc, keys or the log, and damages no point, with a body of %s",
    async (what) => {
      const logged: string[] = [];
      const warn = (event: string, details: object = {}): unknown =>
        logged.push(`${event} ${JSON.stringify(details)}`);
      const logger = { ...silentLogger, warn };
      const store = await plant(what);
      const opening = { store, passphrase, clock: createTestClock(), random: systemRandom, logger };
      const repository = await openRepository(opening);
      const verified = await verify(repository, { logger });
      expect(verified.damagedPoints).toEqual([]);
      const { unknown, garbage } = await collectNow(repository, { isDryRun: true, logger });
      const { damagedObjects, harmless } = verified;
      const keys = await (await openRepositoryKeys(opening)).list();
      const told = JSON.stringify([damagedObjects, harmless, unknown, garbage, keys, logged]);
      expect(names.filter((name) => !told.includes(name))).toEqual([]);
      // What decides nothing is not called damage that stops backups.
      const planted = damagedObjects.filter(({ object }) => object.startsWith("condemned/"));
      expect(planted).toEqual([]);
    },
  );
});

describe("T06: the operator of the store", () => {
  test("puts back an object that was removed, under its own name: it decides nothing, and goes again", async () => {
    const store = await copyStore(base);
    const repository = await openAt(store, createTestClock());
    const [expired = ""] = await keysOf(yesterday, "points/");
    await collectNow(repository, { expire: [expired] });
    await collectNow(repository);
    const left = await keysOf(store);
    expect(left).not.toContain(expired);
    for (const key of await keysOf(base))
      if (!left.includes(key)) await store.put(key, await base.get(key));
    // All of it: then it is the point that it was, whole. Its root or its packs alone are nothing.
    expect((await restoreAll(repository, all)).length).toBe(2);
    const rootOnly = await copyStore(base);
    const again = await openAt(rootOnly, createTestClock());
    await collectNow(again, { expire: [expired] });
    await collectNow(again);
    await rootOnly.put(expired, await base.get(expired));
    expect(await restoreAll(again, all)).toEqual(["a/p2"]);
    const { damagedObjects } = await verify(again);
    expect(damagedObjects.map(({ object }) => object)).toContain(expired);
    await collectNow(again);
    expect(await restoreAll(again, all)).toEqual(["a/p2"]);
    await collectNow(again, { expire: [expired] });
    await collectNow(again, { expire: [expired] });
    expect(await keysOf(rootOnly)).not.toContain(expired);
  });

  test("rolls some folders back: verify names each point that is missing", async () => {
    const was = new Set(await keysOf(yesterday));
    for (const folder of ["points/", "sessions/", "packs/", "disks/", "metadata/"]) {
      const store = await copyStore(base);
      for (const key of await keysOf(store, folder)) if (!was.has(key)) await store.remove([key]);
      const repository = await openAt(store, createTestClock());
      const { damagedObjects, damagedPoints } = await verify(repository);
      const told = JSON.stringify([damagedObjects, damagedPoints]);
      expect(told, folder).toContain("points/a/p2-");
      expect(told, folder).not.toContain("points/a/p1-");
    }
  });

  test("rolls everything back: the repository is yesterday's, which only the catalog can tell", async () => {
    const repository = await openAt(await copyStore(yesterday), createTestClock());
    expect(await restoreAll(repository, all)).toEqual(["a/p1"]);
    const { damagedObjects, damagedPoints } = await verify(repository);
    expect([damagedObjects, damagedPoints]).toEqual([[], []]);
  });
});
