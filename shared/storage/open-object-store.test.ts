import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openObjectStore, probeStorage } from "./open-object-store.ts";
import { parseStorageUrl } from "./storage-url.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-open-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a storage URL is a bucket with a prefix, or a folder", () => {
  for (const [url, expected] of [
    ["s3://bucket", { kind: "s3", bucket: "bucket", prefix: "" }],
    ["s3://bucket/", { kind: "s3", bucket: "bucket", prefix: "" }],
    ["s3://my.bucket-1/a/b", { kind: "s3", bucket: "my.bucket-1", prefix: "a/b" }],
    ["s3://bucket/a/", { kind: "s3", bucket: "bucket", prefix: "a" }],
    ["file:///srv/a%20b", { kind: "directory", path: "/srv/a b" }],
    ["/srv/backup", { kind: "directory", path: "/srv/backup" }],
  ] as const) {
    expect(parseStorageUrl(url), url).toEqual(expected);
  }
});

test("what is no storage URL is refused, with what would be one", () => {
  for (const url of [
    "",
    "relative/path",
    "s3://",
    "s3:///key",
    "s3://B",
    "s3://Bucket/a",
    "s3://bucket//a",
    "s3://bucket/../a",
    "s3://user:secret@bucket/a",
    "http://bucket/a",
    "file://host/path",
    "/a\0b",
  ]) {
    expect(() => parseStorageUrl(url), url).toThrow(/use s3:\/\/bucket\/prefix/);
  }
});

test("a folder is probed, opened and keeps its objects between openings", async () => {
  const path = join(folder, "made/on/demand");
  const { supports, findings } = await probeStorage(path);
  expect(supports).toEqual({ conditionalPut: true });
  expect(findings.map(({ id }) => id)).toContain("file-system");
  await (await openObjectStore(`file://${path}`, { supports })).put("key", Uint8Array.of(1));
  expect(await (await openObjectStore(path)).get("key")).toEqual(Uint8Array.of(1));
});

test("a file is no folder", async () => {
  const file = join(folder, "file");
  await writeFile(file, "");
  await expect(openObjectStore(file)).rejects.toMatchObject({ code: "input.invalid" });
});
