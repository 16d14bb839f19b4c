import { mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { PointMetadata } from "@holdfast/shared/contracts/standalone";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";

const base64Ending = ".base64";
const descriptionName = "description.json";

/**
 * Writes a point's documents and `description.json`, readable by this user only, and returns their paths. Names come out of
 * the repository: one that is no plain file name is refused before anything is written. Nothing is replaced
 * without `overwrite`; fails with `target.refused`.
 */
export async function writeDocuments(
  metadata: PointMetadata,
  { folder, overwrite }: { readonly folder: string; readonly overwrite: boolean },
): Promise<readonly string[]> {
  const files = planFiles(metadata);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const paths: string[] = [];
  for (const [name, bytes] of files) {
    const path = join(folder, name);
    if (overwrite) await replace(path, bytes);
    else await create(path, bytes);
    paths.push(path);
  }
  return paths;
}

function planFiles(metadata: PointMetadata): ReadonlyMap<string, Buffer> {
  const { documents, ...description } = metadata;
  const files = new Map([
    [descriptionName, Buffer.from(`${JSON.stringify(description, undefined, 2)}\n`, "utf8")],
  ]);
  for (const [name, text] of Object.entries(documents)) {
    const isBinary = name.endsWith(base64Ending);
    const fileName = isBinary ? name.slice(0, -base64Ending.length) : name;
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(fileName) || files.has(fileName)) {
      throw new Failure("target.refused", {
        message: `the recovery point has a document named ${JSON.stringify(name)}, which can be no file here; --json shows it`,
      });
    }
    files.set(fileName, Buffer.from(text, isBinary ? "base64" : "utf8"));
  }
  return files;
}

async function create(path: string, bytes: Buffer): Promise<void> {
  try {
    await using file = await open(path, "wx", 0o600);
    await file.writeFile(bytes);
  } catch (error) {
    const isTaken = error instanceof Error && "code" in error && error.code === "EEXIST";
    const what = isTaken
      ? `${path} exists; pass --overwrite to replace it`
      : `cannot write ${path}`;
    throw asFailure(error, "target.refused", what);
  }
}

async function replace(path: string, bytes: Buffer): Promise<void> {
  const partial = `${path}.partial`;
  await rm(partial, { force: true });
  await create(partial, bytes);
  await rename(partial, path);
}
