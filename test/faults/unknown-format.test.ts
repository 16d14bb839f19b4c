import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { identityKey } from "@holdfast/shared/repository/keys/secrets";
import { encodeCondemned } from "@holdfast/shared/repository/session/condemned";
import { createSignedNames } from "@holdfast/shared/repository/session/signed-name";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeEach, describe, expect, test } from "vitest";
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
import { createTestRepository } from "../../mover/pipeline/test-repository.ts";

/** R37: what a newer release may have written into a repository that this one meets. */
const disk = diskOf(1, 2, 3);
const all = new Map([["a/p1", disk]]);
let store: ObjectStore;
let changes: string[];

beforeEach(async () => {
  const plain = createMemoryObjectStore();
  changes = [];
  store = {
    ...plain,
    put: (key, bytes, options) => {
      changes.push(`put ${key}`);
      return plain.put(key, bytes, options);
    },
    remove: (keys, options) => {
      changes.push(`remove ${keys.join(" ")}`);
      return plain.remove(keys, options);
    },
  };
  await createTestRepository(store);
  await backUp(await openAt(store, createTestClock()), { vm: "a", pointId: "p1", disk });
});

const replace = async (key: string, bytes: Uint8Array): Promise<void> => {
  await store.remove([key]);
  await store.put(key, bytes);
  changes = [];
};

describe("R37: refused before anything is written or removed", () => {
  test("another format version, an unknown feature, both as a newer release would sign them", async () => {
    const { secrets } = await openAt(store, createTestClock());
    const config = Buffer.from(await store.get("config"));
    const signed = (body: Buffer): Buffer =>
      Buffer.concat([
        body,
        createHmac("sha256", identityKey(secrets, "config")).update(body).digest(),
      ]);
    const newer = Buffer.from(config.subarray(0, config.length - 32));
    newer.writeUInt16LE(2, 8);
    const json = JSON.parse(config.subarray(20, config.length - 32).toString("utf8"));
    const text = Buffer.from(JSON.stringify({ ...json, features: ["erasure-coding"] }));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(text.length);
    const featured = Buffer.concat([config.subarray(0, 16), length, text]);
    for (const body of [newer, featured]) {
      await replace("config", signed(body));
      const opened = openAt(store, createTestClock());
      await expect(opened).rejects.toMatchObject({ code: "repository.format-unknown" });
      expect(changes).toEqual([]);
    }
  });

  test("a condemned list of another version: sessions don't begin and nothing is collected, restores go on", async () => {
    const repository = await openAt(store, createTestClock());
    const name = createSignedNames(repository.secrets, systemRandom).sign("condemned/list-");
    const list = encodeCondemned({ madeAt: 1, packs: [], compacting: [], roots: [], objects: [] });
    list[0] = 2;
    await repository.objects.put(name, "condemned", list);
    const before = (await keysOf(store)).filter((key) => !key.startsWith("sessions/"));
    const fresh = await openAt(store, createTestClock());
    const again = backUp(fresh, { vm: "a", pointId: "p2", disk });
    await expect(again).rejects.toMatchObject({ code: "object.corrupt" });
    await expect(collectNow(fresh)).rejects.toMatchObject({ code: "object.corrupt" });
    expect((await keysOf(store)).filter((key) => !key.startsWith("sessions/"))).toEqual(before);
    expect(await restoreAll(fresh, all)).toEqual(["a/p1"]);
  });

  test("a condemned list that names what this release never removes", async () => {
    const repository = await openAt(store, createTestClock());
    const objects = ["erasure/0123"];
    await repository.sessions.condemned.put({
      madeAt: 1,
      packs: [],
      compacting: [],
      roots: [],
      objects,
    });
    changes = [];
    await expect(collectNow(repository)).rejects.toMatchObject({ code: "unsupported" });
    expect(changes.filter((change) => !/^put sessions|condemned\/seen/.test(change))).toEqual([]);
  });
});

describe("R37: left alone", () => {
  test("folders and session records of a newer release are not removed, and stop nothing", async () => {
    const repository = await openAt(store, createTestClock());
    const names = createSignedNames(repository.secrets, systemRandom);
    const [start = ""] = await keysOf(store, "sessions/");
    const later = names.sign(`${start.slice(0, start.lastIndexOf("/"))}/witness-`);
    const strangers = ["parity/0123", "disks/0123-v2", "index/0123.2", later];
    for (const key of strangers) await store.put(key, Uint8Array.of(1));
    await backUp(repository, { vm: "a", pointId: "p2", disk });
    const report = await collectNow(repository);
    await collectNow(repository);
    expect([...report.unknown.names].sort()).toEqual([...strangers].sort());
    for (const key of strangers) expect(await store.head(key), key).toBeDefined();
  });

  test("an object whose header has another version is damage, not data", async () => {
    for (const folder of ["points/", "disks/", "packs/", "metadata/"]) {
      const copy = await copyStore(store);
      for (const key of await keysOf(copy, folder)) {
        const bytes = Uint8Array.from(await copy.get(key));
        bytes[8] = 2;
        await copy.remove([key]);
        await copy.put(key, bytes);
      }
      const repository = await openAt(copy, createTestClock());
      // A pack's header is no reader's concern: each record is authenticated by itself.
      if (folder === "packs/") expect(await restoreAll(repository, all)).toEqual(["a/p1"]);
      else
        await expect(restoreAll(repository, all), folder).rejects.toMatchObject({
          code: "object.corrupt",
        });
    }
  });
});
