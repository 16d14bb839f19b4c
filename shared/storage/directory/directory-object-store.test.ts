import { chmod, mkdir, mkdtemp, readdir, rename, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createDirectoryObjectStore } from "./directory-object-store.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-directory-"));
});
afterEach(() => rm(folder, { recursive: true }));

const nowMs = Date.UTC(2026, 0, 2);
const clock = { now: () => nowMs, sleep: async () => undefined };

test("what crashed puts left is not listed, and is swept a day later", async () => {
  await writeFile(join(folder, ".tmp-old"), "x");
  await utimes(join(folder, ".tmp-old"), new Date(0), new Date(nowMs - 25 * 3_600_000));
  await writeFile(join(folder, ".tmp-new"), "x");
  await utimes(join(folder, ".tmp-new"), new Date(0), new Date(nowMs - 3_600_000));
  await mkdir(join(folder, "a"));
  await writeFile(join(folder, "a/.tmp-in-folder"), "x");
  const store = createDirectoryObjectStore(folder, { clock });
  await store.put("a/key", Uint8Array.of(1));
  const listed: string[] = [];
  for await (const { key } of store.list("")) listed.push(key);
  expect(listed).toEqual(["a/key"]);
  expect((await readdir(folder)).sort()).toEqual([".tmp-new", "a"]);
});

test("a put leaves no temporary file, whether it succeeds or fails", async () => {
  const store = createDirectoryObjectStore(folder);
  await store.put("key", Uint8Array.of(1));
  await expect(store.put("key", Uint8Array.of(2))).rejects.toMatchObject({ code: "object.exists" });
  expect(await readdir(folder)).toEqual(["key"]);
});

test("an object where the key has a folder is refused, not overwritten", async () => {
  const store = createDirectoryObjectStore(folder);
  await store.put("a", Uint8Array.of(1));
  await expect(store.put("a/b", Uint8Array.of(2))).rejects.toMatchObject({
    code: "storage.refused",
  });
  expect(await store.head("a/b")).toBeUndefined();
  await expect(store.get("a/b")).rejects.toMatchObject({ code: "object.not-found" });
  expect(await store.get("a")).toEqual(Uint8Array.of(1));
});

test("a folder that vanishes while in use is unreachable, and is not made again", async () => {
  const root = join(folder, "mounted");
  const store = createDirectoryObjectStore(root);
  await store.put("key", Uint8Array.of(1));
  await rename(root, join(folder, "unmounted"));
  await expect(store.put("other", Uint8Array.of(1))).rejects.toMatchObject({
    code: "storage.unreachable",
  });
  await expect(store.get("key")).rejects.toMatchObject({ code: "storage.unreachable" });
  await expect(store.head("key")).rejects.toMatchObject({ code: "storage.unreachable" });
  await expect(readdir(root)).rejects.toMatchObject({ code: "ENOENT" });
});

test("a store without rights is refused, with the path", async (context) => {
  context.skip(process.getuid?.() === 0, "root may write everywhere");
  await chmod(folder, 0o500);
  const store = createDirectoryObjectStore(folder);
  await expect(store.put("key", Uint8Array.of(1))).rejects.toMatchObject({
    code: "storage.refused",
  });
  await chmod(folder, 0o700);
});

test("a repository that was never written is empty", async () => {
  const store = createDirectoryObjectStore(join(folder, "never"));
  expect(await store.head("key")).toBeUndefined();
  await expect(store.get("key")).rejects.toMatchObject({ code: "object.not-found" });
  for await (const { key } of store.list("")) expect(key).toBeUndefined();
  await store.remove(["key"]);
  expect(await readdir(folder)).toEqual([]);
});

test("folders go with their last object, also while others put into them", async () => {
  const stores = [createDirectoryObjectStore(folder), createDirectoryObjectStore(folder)] as const;
  await Promise.all(
    stores.map(async (store, writer) => {
      for (let round = 0; round < 60; round += 1) {
        const key = `a/b/${writer}-${round}`;
        await store.put(key, Uint8Array.of(round));
        expect(await store.get(key)).toEqual(Uint8Array.of(round));
        await store.remove([key]);
      }
    }),
  );
  expect(await readdir(folder)).toEqual([]);
  await stores[0].put("a/b/c/d", Uint8Array.of(1));
  await stores[0].put("a/e", Uint8Array.of(1));
  await stores[1].remove(["a/b/c/d"]);
  expect(await readdir(join(folder, "a"))).toEqual(["e"]);
});
