import { constants } from "node:fs";
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  rename,
  rmdir,
  stat,
  unlink,
} from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { type Clock, systemClock } from "@holdfast/shared/ports/clock";
import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import { type RandomBytes, systemRandom } from "@holdfast/shared/ports/random";
import {
  checkByteRange,
  checkObjectKey,
  checkObjectPrefix,
  compareKeys,
  temporaryNamePrefix,
} from "../object-key.ts";
import { asStorageFailure, errorCode } from "./directory-failure.ts";

/** A leftover this old belongs to no put that is still running; removing one that does only fails that put. */
const leftoverAgeMsMin = 24 * 60 * 60 * 1000;
/** Files are written and read in pieces of this many bytes, so that an abort is noticed soon. */
const pieceBytes = 8 * 1024 * 1024;
/** Bounds the memory of which folders are known to be durable; forgetting costs one sync each. */
const foldersKnownMax = 10_000;

export type DirectoryObjectStoreOptions = {
  readonly clock?: Clock;
  readonly random?: RandomBytes;
  /** False on mounts without hard links (some of CIFS, FUSE): a put then looks first and renames. Undefined: found out by each put. */
  readonly hardLinks?: boolean;
};

/**
 * A folder, or a mounted NAS, as an object store. An object is written to a temporary file, synced, and then linked
 * to its name: link(2) never replaces, so a reader sees all of an object or none and a taken key is refused between
 * machines too. Data and name are synced before a put resolves.
 *
 * The folder is made by the first put. From then on it must stay on the same device: a NAS that is unmounted in
 * mid-job must not turn into a folder of the same name on the local disk.
 */
export function createDirectoryObjectStore(
  path: string,
  options: DirectoryObjectStoreOptions = {},
): ObjectStore {
  const { clock = systemClock, random = systemRandom, hardLinks } = options;
  const root = resolve(path);
  const place = createPlace(root, clock);
  const foldersSynced = new Map<string, string>();
  const pathOf = (key: string): string => join(root, key);

  return {
    supports: { conditionalPut: hardLinks ?? true },
    url: root,

    async put(key, bytes, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      if (call?.retention !== undefined) {
        throw new Failure("unsupported", {
          message: `${root} is a folder: nothing in it can be locked; use an S3 bucket with Object Lock`,
        });
      }
      const target = pathOf(key);
      const temporary = join(
        root,
        `${temporaryNamePrefix}${Buffer.from(random(12)).toString("hex")}`,
      );
      try {
        await place.makeReady();
        await writeSynced(temporary, bytes, call?.signal);
        await placeFile(temporary, target, { root, known: foldersSynced, hardLinks });
        await syncFolder(dirname(target));
      } catch (error) {
        throw asStorageFailure(error, { key, action: "write" });
      } finally {
        // What cannot be removed now is swept by a later process; it must not hide the put's own outcome.
        await unlink(temporary).catch(() => undefined);
      }
    },

    async get(key, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      return await withFile(pathOf(key), key, async (file, sizeBytes) =>
        readExactly(file, { key, offset: 0, length: sizeBytes, signal: call?.signal }),
      );
    },

    async getRange(key, range, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      checkByteRange(range);
      return await withFile(pathOf(key), key, async (file, sizeBytes) => {
        if (range.offset + range.length > sizeBytes) throw tooShort(key, sizeBytes, range);
        return readExactly(file, { key, ...range, signal: call?.signal });
      });
    },

    async head(key, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      try {
        await place.check();
        const found = await stat(pathOf(key));
        if (!found.isFile()) return undefined;
        // Of a share it is the server's clock.
        return { key, sizeBytes: found.size, storedAtMs: found.mtimeMs };
      } catch (error) {
        const failure = asStorageFailure(error, { key, action: "look at" });
        if (isFailure(failure, "object.not-found")) return undefined;
        throw failure;
      }
    },

    async *list(prefix, call) {
      checkObjectPrefix(prefix);
      await place.check();
      const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
      yield* listFolder(root, folder, prefix, call?.signal);
    },

    async remove(keys, call) {
      for (const key of keys) checkObjectKey(key);
      await place.check();
      for (const key of keys) {
        call?.signal?.throwIfAborted();
        await unlink(pathOf(key)).catch((error: unknown) => {
          // A folder of that name holds other objects; there is none of this name.
          if (errorCode(error) === "EISDIR") return;
          const failure = asStorageFailure(error, { key, action: "remove" });
          if (!isFailure(failure, "object.not-found")) throw failure;
        });
      }
      for (const folder of new Set(keys.map((key) => dirname(pathOf(key))))) {
        await syncFolder(folder).catch((error: unknown) => {
          const failure = asStorageFailure(error, { key: relative(root, folder), action: "sync" });
          if (!isFailure(failure, "object.not-found")) throw failure;
        });
        await removeEmpty(folder, { root, known: foldersSynced });
      }
    },
  };

  async function withFile<T>(
    file: string,
    key: string,
    use: (file: FileHandle, sizeBytes: number) => Promise<T>,
  ): Promise<T> {
    try {
      await place.check();
      await using handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
      const found = await handle.stat();
      if (found.isFile()) return await use(handle, found.size);
    } catch (error) {
      throw asStorageFailure(error, { key, action: "read" });
    }
    throw new Failure("object.not-found", { message: `object ${key} does not exist`, key });
  }
}

/** Remembers on which device the root is and refuses another one. */
function createPlace(root: string, clock: Clock) {
  let device: number | undefined;
  let swept = false;

  async function check(): Promise<void> {
    const found = await stat(root).catch((error: unknown) => {
      if (device === undefined && errorCode(error) === "ENOENT") return undefined;
      throw asStorageFailure(error, {
        key: root,
        action: "look at",
        missing: "storage.unreachable",
      });
    });
    if (found === undefined) return;
    if (!found.isDirectory()) {
      throw new Failure("storage.refused", { message: `${root} is not a folder` });
    }
    device ??= found.dev;
    if (device === found.dev) return;
    throw new Failure("storage.unreachable", {
      message: `${root} is now on another device than before: was something unmounted? Mount it again and retry`,
    });
  }

  return {
    check,
    async makeReady(): Promise<void> {
      await check();
      if (device === undefined) {
        await mkdir(root, { recursive: true });
        await check();
      }
      if (swept) return;
      swept = true;
      await removeLeftovers(root, clock.now() - leftoverAgeMsMin);
    },
  };
}

async function removeLeftovers(root: string, olderThanMs: number): Promise<void> {
  for (const name of await readdir(root)) {
    if (!name.startsWith(temporaryNamePrefix)) continue;
    const file = join(root, name);
    const found = await stat(file).catch(ignoreMissing);
    if (found !== undefined && found.mtimeMs < olderThanMs) await unlink(file).catch(ignoreMissing);
  }
}

/** How often a folder may be removed as empty by others between its making and the first file in it. */
const placingsMax = 5;

/** Gives the finished file its name, in a folder that may have to be made, and may be gone as empty the next moment. */
async function placeFile(
  temporary: string,
  target: string,
  options: Folders & { readonly hardLinks: boolean | undefined },
): Promise<void> {
  for (let placings = 1; ; placings += 1) {
    try {
      await makeFolders(dirname(target), options);
      await publish(temporary, target, options.hardLinks);
      return;
    } catch (error) {
      if (errorCode(error) !== "ENOENT" || placings >= placingsMax) throw error;
    }
  }
}

/** Folders are made by puts and go with their last object: sessions alone would leave one each for ever. */
async function removeEmpty(folder: string, options: Folders): Promise<void> {
  if (folder === options.root) return;
  options.known.delete(folder);
  try {
    await rmdir(folder);
  } catch (error) {
    // It holds something, is gone already, or this user may not: nothing depends on it.
    if (errorCode(error) !== "") return;
    throw error;
  }
  await removeEmpty(dirname(folder), options);
}

/** Known are folders whose own names are durable, and which folders they were: another one may have taken the name. */
type Folders = { readonly root: string; readonly known: Map<string, string> };

/** Makes the folder and those above it. A folder that this process has not met yet is synced into the one above. */
async function makeFolders(folder: string, options: Folders): Promise<void> {
  const { root, known } = options;
  if (folder === root) return;
  try {
    await mkdir(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") {
      await makeFolders(dirname(folder), options);
      return makeFolders(folder, options);
    }
    if (errorCode(error) !== "EEXIST") throw error;
  }
  const { ino, birthtimeMs } = await stat(folder);
  const identity = `${ino} ${birthtimeMs}`;
  if (known.get(folder) === identity) return;
  await syncFolder(dirname(folder));
  if (known.size >= foldersKnownMax) known.clear();
  known.set(folder, identity);
}

async function writeSynced(
  path: string,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  let done = 0;
  while (done < bytes.length) {
    signal?.throwIfAborted();
    const piece = bytes.subarray(done, done + pieceBytes);
    const { bytesWritten } = await file.write(piece);
    done += bytesWritten;
  }
  await file.sync();
  signal?.throwIfAborted();
}

/** Gives the finished file its name. */
async function publish(from: string, to: string, hardLinks: boolean | undefined): Promise<void> {
  if (hardLinks === false) return await renameIfFree(from, to);
  try {
    await link(from, to);
  } catch (error) {
    if (errorCode(error) === "EEXIST") throw alreadyExists(to, error);
    if (hardLinks === true || !linkRefusals.has(errorCode(error))) throw error;
    await renameIfFree(from, to);
  }
}

/** What link(2) says on a mount that has no hard links. */
const linkRefusals: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

async function renameIfFree(from: string, to: string): Promise<void> {
  const found = await stat(to).catch(ignoreMissing);
  if (found !== undefined) throw alreadyExists(to, undefined);
  await rename(from, to);
}

/** Makes the folder's entries durable. Some network mounts cannot sync folders; they write entries through. */
async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  await handle.sync().catch((error: unknown) => {
    if (!["EINVAL", "ENOTSUP", "EOPNOTSUPP"].includes(errorCode(error))) throw error;
  });
}

async function readExactly(
  file: FileHandle,
  options: {
    readonly key: string;
    readonly offset: number;
    readonly length: number;
    readonly signal: AbortSignal | undefined;
  },
): Promise<Uint8Array> {
  const { key, offset, length, signal } = options;
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    signal?.throwIfAborted();
    const wanted = Math.min(pieceBytes, length - done);
    const { bytesRead } = await file.read(bytes, done, wanted, offset + done);
    if (bytesRead === 0) throw tooShort(key, offset + done, { offset, length });
    done += bytesRead;
  }
  return bytes;
}

/** Holds one folder's names at a time (and those of the folders above). A folder sorts as its name with a slash. */
async function* listFolder(
  root: string,
  folder: string,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ObjectHead> {
  const names: string[] = [];
  for (const entry of await readdir(join(root, folder), { withFileTypes: true }).catch(noEntries)) {
    if (entry.name.startsWith(temporaryNamePrefix)) continue;
    const key = `${folder}${entry.name}${entry.isDirectory() ? "/" : ""}`;
    const wanted = key.startsWith(prefix) || (key.endsWith("/") && prefix.startsWith(key));
    if (wanted && (entry.isDirectory() || entry.isFile())) names.push(key);
  }
  for (const key of names.sort(compareKeys)) {
    signal?.throwIfAborted();
    if (key.endsWith("/")) {
      yield* listFolder(root, key, prefix, signal);
      continue;
    }
    const found = await stat(join(root, key)).catch(ignoreMissing);
    if (found !== undefined) yield { key, sizeBytes: found.size };
  }
}

function noEntries(error: unknown): never[] {
  if (["ENOENT", "ENOTDIR"].includes(errorCode(error))) return [];
  throw asStorageFailure(error, { key: "", action: "list" });
}

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) === "ENOENT") return undefined;
  throw asStorageFailure(error, { key: "", action: "look at" });
}

function alreadyExists(path: string, cause: unknown): Failure {
  return new Failure("object.exists", { message: `object ${path} exists already`, cause });
}

function tooShort(
  key: string,
  sizeBytes: number,
  range: { offset: number; length: number },
): Failure {
  return new Failure("object.corrupt", {
    message: `object ${key} has ${sizeBytes} bytes, bytes ${range.offset} to ${range.offset + range.length} were asked for`,
    key,
  });
}
