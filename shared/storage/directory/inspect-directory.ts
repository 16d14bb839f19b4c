import { constants } from "node:fs";
import { access, open, realpath, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { danger, type Finding, note, warning } from "../finding.ts";
import { errorCode } from "./directory-failure.ts";

const gibibyte = 1024 ** 3;
const freeBytesMin = 10 * gibibyte;
const freeShareMin = 0.05;
const freeFilesMin = 10_000;

/** Magic numbers of statfs(2). */
const fileSystems: Readonly<Record<number, string | undefined>> = {
  61267: "ext4",
  1481003842: "xfs",
  2435016766: "btrfs",
  801189825: "zfs",
  26985: "nfs",
  4283649346: "cifs",
  4266872130: "smb2",
  1702057286: "fuse",
  16914836: "tmpfs",
  2035054128: "overlay",
  12805120: "ceph",
};

/** What can be told of a folder without writing to it; a folder that is not there yet is judged by the one above. */
export async function inspectDirectory(path: string): Promise<readonly Finding[]> {
  const folder = await nearestFolder(path);
  return [
    ...(await inspectFileSystem(path, folder)),
    ...(await inspectRights(folder)),
    ...(await inspectSync(folder)),
  ];
}

async function inspectFileSystem(path: string, folder: string): Promise<Finding[]> {
  const found: Finding[] = [];
  const { type, bsize, bavail, blocks, files, ffree } = await statfs(folder);
  const kind = fileSystems[type] ?? `of type 0x${type.toString(16)}`;
  const free = bavail * bsize;
  const space = `${(free / gibibyte).toFixed(1)} GiB of ${((blocks * bsize) / gibibyte).toFixed(1)} GiB are free`;
  found.push(note("file-system", `${folder} lies on a file system ${kind}; ${space}`));
  if (kind === "tmpfs") {
    const what = `${folder} lies in memory: all of it is gone after a restart`;
    found.push(warning("in-memory", what, "Use a folder on a disk or a share."));
  }
  if (kind === "overlay") {
    const what = `${folder} lies in a container's own layer: it goes with the container`;
    found.push(warning("in-container", what, "Mount a volume there."));
  }
  if (free < freeBytesMin || free < blocks * bsize * freeShareMin) {
    const what = `${folder} has little room left: ${space}`;
    found.push(warning("little-space", what, "Free space, or remove recovery points."));
  }
  // Some file systems make files as they are needed and say 0 of 0.
  if (files > 0 && ffree < freeFilesMin) {
    const what = `${folder} has room for ${ffree} more files only`;
    found.push(warning("few-files", what, "Use a file system with more inodes."));
  }
  const sameAsRoot = (await stat(folder)).dev === (await stat("/")).dev;
  if (sameAsRoot && kind !== "overlay") {
    const what = `${path} lies on this machine's root file system: it is lost with the machine, and an unmounted share looks like this`;
    found.push(warning("root-file-system", what, "Mount a disk or share there of its own."));
  }
  return found;
}

async function inspectRights(folder: string): Promise<Finding[]> {
  const found: Finding[] = [];
  const { mode } = await stat(folder);
  if ((mode & 0o002) !== 0 && (mode & 0o1000) === 0) {
    const what = `everybody on this machine may write to ${folder} and remove what is there`;
    found.push(danger("writable-by-all", what, `chmod o-w ${folder}`));
  }
  const writable = await access(folder, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  if (!writable) {
    const what = `this user may not write to ${folder}`;
    found.push(danger("not-writable", what, "Run as the user who owns it, or change its rights."));
  }
  return found;
}

async function inspectSync(folder: string): Promise<Finding[]> {
  await using handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
    return [];
  } catch (error) {
    const what = `names in ${folder} cannot be made durable (${errorCode(error)}): what was stored just before a power failure may be lost`;
    return [warning("no-folder-sync", what, "Use a share that writes through, or a local disk.")];
  }
}

async function nearestFolder(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || dirname(path) === path) throw error;
    return await nearestFolder(dirname(path));
  }
}
