import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeDocuments } from "./write-documents.ts";

let folder: string;
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "holdfast-documents-")), "web");
});
afterEach(() => rmSync(join(folder, ".."), { recursive: true, force: true }));

const nvram = Buffer.from([0, 255, 10, 13, 128]);
const metadata = (documents: Record<string, string>) => ({
  pointId: "p",
  name: "web",
  takenAt: "2026-11-20T02:00:00Z",
  providerKind: "libvirt",
  description: { name: "web", vcpus: 2 },
  disks: [{ key: "vda", sizeBytes: 1024 }],
  excludedDisks: [],
  documents,
});
const good = metadata({ "domain.xml": "<domain/>", "nvram.base64": nvram.toString("base64") });

test("writes text as text, binary as binary, and the description, for this user only", async () => {
  const files = await writeDocuments(good, { folder, overwrite: false });
  expect(files).toEqual(
    ["description.json", "domain.xml", "nvram"].map((name) => join(folder, name)),
  );
  expect(readFileSync(join(folder, "domain.xml"), "utf8")).toBe("<domain/>");
  expect(readFileSync(join(folder, "nvram")).equals(nvram)).toBe(true);
  const description = JSON.parse(readFileSync(join(folder, "description.json"), "utf8"));
  expect(description).toMatchObject({ pointId: "p", description: { vcpus: 2 } });
  for (const file of files) expect(statSync(file).mode & 0o777).toBe(0o600);
});

test("replaces nothing unless it is told to", async () => {
  await writeDocuments(good, { folder, overwrite: false });
  const other = metadata({ "domain.xml": "<other/>" });
  await expect(writeDocuments(other, { folder, overwrite: false })).rejects.toMatchObject({
    code: "target.refused",
  });
  expect(readFileSync(join(folder, "domain.xml"), "utf8")).toBe("<domain/>");
  await writeDocuments(other, { folder, overwrite: true });
  expect(readFileSync(join(folder, "domain.xml"), "utf8")).toBe("<other/>");
  expect(readdirSync(folder).sort()).toEqual(["description.json", "domain.xml", "nvram"]);
});

test.each(["../evil", "/etc/evil", "..", ".hidden", "a/b", "", "x\n", "description.json", "a\0"])(
  "a document named %j is refused before anything is written",
  async (name) => {
    const hostile = metadata({ "domain.xml": "<domain/>", [name]: "x" });
    await expect(writeDocuments(hostile, { folder, overwrite: true })).rejects.toMatchObject({
      code: "target.refused",
    });
    expect(existsSync(folder)).toBe(false);
  },
);
