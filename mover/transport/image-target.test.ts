import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openImageSource } from "./image-source.ts";
import { openImageTarget } from "./image-target.ts";

/** Raw files only: what needs qemu-utils is in test/systems. */
let folder = "";
let count = 0;
const newPath = (): string => path.join(folder, `image-${count++}`);
const raw = { format: "raw", sizeBytes: 4 * 1024 * 1024, overwrite: false } as const;

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "holdfast-image-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a raw file as target", () => {
  test("has its name only after commit, whole and sparse", async () => {
    const output = newPath();
    const data = randomBytes(100_000);
    await using target = await openImageTarget({ ...raw, output, sizeBytes: 64 * 1024 * 1024 });
    await target.write(5_000_000, data);
    await target.zero(10_000_000, 50_000_000);
    expect(existsSync(output)).toBe(false);
    await target.commit();
    const bytes = readFileSync(output);
    expect(bytes.length).toBe(64 * 1024 * 1024);
    expect(bytes.subarray(5_000_000, 5_100_000).equals(data)).toBe(true);
    expect(bytes.subarray(5_100_000).every((byte) => byte === 0)).toBe(true);
    expect(statSync(output).blocks * 512).toBeLessThan(1024 * 1024);
    expect(statSync(output).mode & 0o777).toBe(0o600);
    expect(existsSync(`${output}.partial`)).toBe(false);
  });

  test("leaves nothing when it is not committed", async () => {
    const output = newPath();
    const target = await openImageTarget({ ...raw, output });
    await target.write(0, Buffer.from("x"));
    await target[Symbol.asyncDispose]();
    expect([existsSync(output), existsSync(`${output}.partial`)]).toEqual([false, false]);
  });

  test("holds what was written and zeroed, in any order", async () => {
    const step = fc.record({
      offset: fc.nat(3 * 1024 * 1024),
      length: fc.integer({ min: 0, max: 1024 * 1024 }),
      fill: fc.integer({ min: 0, max: 3 }),
    });
    const property = fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const output = newPath();
      await using target = await openImageTarget({ ...raw, output });
      const expected = Buffer.alloc(raw.sizeBytes);
      for (const { offset, length, fill } of steps) {
        expected.fill(fill, offset, offset + length);
        if (fill === 0) await target.zero(offset, length);
        else await target.write(offset, Buffer.alloc(length, fill));
      }
      await target.commit();
      expect(readFileSync(output).equals(expected)).toBe(true);
      rmSync(output);
    });
    await fc.assert(property, { numRuns: 15 });
  });

  test("refuses taken names, partial files of others, folders and links, and leaves them alone", async () => {
    const taken = newPath();
    writeFileSync(taken, "precious");
    const begun = newPath();
    writeFileSync(`${begun}.partial`, "begun");
    const link = newPath();
    symlinkSync(taken, link);
    for (const output of [taken, begun, link, folder]) {
      await expect(openImageTarget({ ...raw, output })).rejects.toMatchObject({
        code: "target.refused",
      });
    }
    const overLink = openImageTarget({ ...raw, output: link, overwrite: true });
    await expect(overLink).rejects.toMatchObject({ code: "target.refused" });
    expect(readFileSync(taken, "utf8")).toBe("precious");
    expect(readFileSync(`${begun}.partial`, "utf8")).toBe("begun");
  });

  test("does not replace a file that someone made meanwhile", async () => {
    const output = newPath();
    await using target = await openImageTarget({ ...raw, output });
    writeFileSync(output, "precious");
    await expect(target.commit()).rejects.toMatchObject({ code: "target.refused" });
    expect(readFileSync(output, "utf8")).toBe("precious");
  });

  test("with overwrite replaces the file at commit and not before", async () => {
    const output = newPath();
    writeFileSync(output, "old");
    writeFileSync(`${output}.partial`, "older");
    await using target = await openImageTarget({ ...raw, output, overwrite: true, sizeBytes: 3 });
    await target.write(0, Buffer.from("new"));
    expect(readFileSync(output, "utf8")).toBe("old");
    await target.commit();
    expect(readFileSync(output, "utf8")).toBe("new");
  });

  test("refuses what is outside of the disk", async () => {
    await using target = await openImageTarget({ ...raw, output: newPath() });
    const outside = target.write(raw.sizeBytes - 1, Buffer.alloc(2));
    await expect(outside).rejects.toMatchObject({ code: "internal" });
    await expect(target.zero(-1, 1)).rejects.toMatchObject({ code: "internal" });
  });
});

describe("a file as source", () => {
  test("that is raw is read as it is, and its extents cover it once", async () => {
    const source = newPath();
    const bytes = Buffer.concat([randomBytes(3_000_001), Buffer.alloc(1_000_000)]);
    writeFileSync(source, bytes);
    await using reader = await openImageSource({ source, format: undefined });
    expect(reader.sizeBytes).toBe(bytes.length);
    expect(reader.description).toContain("raw file");
    const into = Buffer.alloc(bytes.length);
    let at = 0;
    for await (const { offset, length, kind } of reader.extents()) {
      expect(offset).toBe(at);
      if (kind === "data") await reader.read(offset, into.subarray(offset, offset + length));
      at += length;
    }
    expect(at).toBe(bytes.length);
    expect(into.equals(bytes)).toBe(true);
  });

  test("that looks like qcow2 must be named, and may be named raw", async () => {
    const source = newPath();
    const bytes = Buffer.concat([Buffer.from("514649fb00000003", "hex"), randomBytes(4088)]);
    writeFileSync(source, bytes);
    const opening = openImageSource({ source, format: undefined });
    await expect(opening).rejects.toMatchObject({
      code: "input.invalid",
      message: expect.stringContaining("--format"),
    });
    await using reader = await openImageSource({ source, format: "raw" });
    const into = Buffer.alloc(4096);
    await reader.read(0, into);
    expect(into.equals(bytes)).toBe(true);
  });

  test("that is cut while it is read fails, and gives no zeros", async () => {
    const source = newPath();
    writeFileSync(source, randomBytes(1_000_000));
    await using reader = await openImageSource({ source, format: "raw" });
    writeFileSync(source, randomBytes(10));
    const reading = reader.read(500_000, Buffer.alloc(1000));
    await expect(reading).rejects.toMatchObject({ code: "disk.read-failed" });
  });

  test("that is missing or no file is refused", async () => {
    const missing = openImageSource({ source: newPath(), format: "raw" });
    await expect(missing).rejects.toMatchObject({ code: "not-found" });
    for (const source of [folder, "/dev/null"]) {
      const opening = openImageSource({ source, format: "raw" });
      await expect(opening).rejects.toMatchObject({ code: "input.invalid" });
    }
  });

  test("an NBD address takes no format", async () => {
    const opening = openImageSource({ source: "nbd://127.0.0.1:1/x", format: "qcow2" });
    await expect(opening).rejects.toMatchObject({ code: "input.invalid" });
  });
});
