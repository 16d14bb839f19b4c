import { Failure } from "../domain/failure.ts";
import type { HostConnection } from "../ports/host.ts";

/** Files on the host. Paths are absolute and reach the programs as single arguments. */

/** The command's stdout; anything but exit 0 is `host.command-failed`, `host.no-space` or `host.package-missing`. */
export async function runOnHost(
  connection: HostConnection,
  command: readonly [string, ...string[]],
  options: {
    readonly input?: string | Uint8Array;
    readonly timeoutMs?: number;
    readonly outputBytesMax?: number;
    readonly environment?: Readonly<Record<string, string>>;
  } = {},
): Promise<string> {
  const result = await connection.run(command, {
    ...options,
    environment: { LC_ALL: "C", ...options.environment },
  });
  if (result.exitCode === 0) return result.stdout;
  const said = result.stderr.trim().slice(0, 1500) || `exit code ${result.exitCode}`;
  const message = `${command[0]} on ${connection.name}: ${said}`;
  if (/No space left on device/.test(said)) throw new Failure("host.no-space", { message });
  if (result.exitCode === 127) throw new Failure("host.package-missing", { message });
  throw new Failure("host.command-failed", { message });
}

export type FileFacts = {
  /** Stays when a file is renamed, changes when another file takes its name. */
  readonly inode: string;
  readonly sizeBytes: number;
  /** Last change of content or attributes, seconds since 1970 with nanoseconds, as text: only for "is it the same". */
  readonly changed: string;
  readonly owner: string;
};

/** Undefined when there is no such file. */
export async function statFile(
  connection: HostConnection,
  path: string,
): Promise<FileFacts | undefined> {
  const result = await connection.run(
    ["stat", "--dereference", "--printf=%i %s %.9Y/%.9Z %u:%g", "--", path],
    { environment: { LC_ALL: "C" } },
  );
  if (result.exitCode !== 0) {
    if (/No such file or directory|Not a directory/.test(result.stderr)) return undefined;
    throw new Failure("host.command-failed", { message: `stat ${path}: ${result.stderr.trim()}` });
  }
  const [inode, size, changed, owner] = result.stdout.split(" ");
  if (inode === undefined || size === undefined || changed === undefined || owner === undefined) {
    throw new Failure("host.output-invalid", { message: `stat ${path}: ${result.stdout}` });
  }
  return { inode, sizeBytes: Number(size), changed, owner };
}

/** Free bytes for root in the file system of a folder. */
export async function freeBytes(connection: HostConnection, folder: string): Promise<number> {
  const output = await runOnHost(connection, ["df", "--output=avail", "--block-size=1", folder]);
  const free = Number(output.trim().split("\n").at(-1));
  if (!Number.isSafeInteger(free)) {
    throw new Failure("host.output-invalid", { message: `df ${folder}: ${output.trim()}` });
  }
  return free;
}

/** One that is gone already is no failure. */
export async function removeFile(connection: HostConnection, path: string): Promise<void> {
  await runOnHost(connection, ["rm", "-f", "--", path]);
}

export async function writeFile(
  connection: HostConnection,
  path: string,
  content: string | Uint8Array,
): Promise<void> {
  await runOnHost(connection, ["cp", "/dev/stdin", path], { input: content });
}

/** Makes a folder of one owner alone, below one that may be passed through but not listed. */
export async function makeFolder(
  connection: HostConnection,
  path: string,
  owner?: { readonly user: string; readonly group: string },
): Promise<void> {
  await runOnHost(connection, ["mkdir", "-p", "-m", "0711", "--", folderOf(path)]);
  const ownership = owner === undefined ? [] : ["-o", owner.user, "-g", owner.group];
  await runOnHost(connection, ["install", "-d", "-m", "0700", ...ownership, "--", path]);
}

export function folderOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 1));
}

export function fileNameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
