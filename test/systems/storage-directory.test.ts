import { execFileSync, spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createDirectoryObjectStore } from "@holdfast/shared/storage/directory/directory-object-store";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

/** The directory store where it hurts: a full file system, another mount at its place, a writer killed in mid-put. Needs root. */
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-directory-"));
});
afterEach(() => rm(folder, { recursive: true }));

describe("on a file system of 1 MiB", () => {
  beforeEach(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]));
  afterEach(() => {
    execFileSync("umount", ["--lazy", folder]);
  });

  test("no space is said as such, nothing is left, and space can be freed", async () => {
    const store = createDirectoryObjectStore(folder);
    await store.put("a", new Uint8Array(600_000));
    await expect(store.put("b", new Uint8Array(600_000))).rejects.toMatchObject({
      code: "storage.no-space",
    });
    expect(await readdir(folder)).toEqual(["a"]);
    await store.remove(["a"]);
    await store.put("b", new Uint8Array(600_000));
  });

  test("after an unmount nothing is written to the folder below", async () => {
    const store = createDirectoryObjectStore(folder);
    await store.put("a", new Uint8Array(1));
    execFileSync("umount", [folder]);
    try {
      await expect(store.put("b", new Uint8Array(1))).rejects.toMatchObject({
        code: "storage.unreachable",
      });
      await expect(store.head("a")).rejects.toMatchObject({ code: "storage.unreachable" });
      expect(await readdir(folder)).toEqual([]);
    } finally {
      execFileSync("mount", ["-t", "tmpfs", "tmpfs", folder]);
    }
  });
});

test("a writer killed at any moment leaves whole objects only", async () => {
  const module = import.meta.resolve("@holdfast/shared/storage/directory/directory-object-store");
  const script = `
    const { createDirectoryObjectStore } = await import(${JSON.stringify(module)});
    const store = createDirectoryObjectStore(process.argv[1]);
    for (let index = 0; ; index += 1) {
      await store.put("run-" + process.pid + "/" + index, new Uint8Array(3_000_000).fill(index));
      if (index === 3) process.stdout.write("running");
    }`;
  for (let round = 0; round < 5; round += 1) {
    const args = ["--input-type=module", "--eval", script, folder];
    const writer = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise((resolve) => writer.stdout.once("data", resolve));
    writer.kill("SIGKILL");
    await new Promise((resolve) => writer.once("exit", resolve));
  }
  const store = createDirectoryObjectStore(folder);
  let objects = 0;
  for await (const { key, sizeBytes } of store.list("")) {
    expect(sizeBytes).toBe(3_000_000);
    const first = Number(key.split("/")[1]) % 256;
    expect(Buffer.compare(await store.get(key), new Uint8Array(3_000_000).fill(first))).toBe(0);
    objects += 1;
  }
  expect(objects).toBeGreaterThanOrEqual(20);
});
