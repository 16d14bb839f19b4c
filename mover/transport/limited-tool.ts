import { execFileSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { childEnvironment } from "./local-host.ts";

/**
 * Starts the tools that read images (whose bytes a guest chose) with limits: on memory, where asked on CPU time, without
 * core dumps, and without network where this process may take it away (root). `prlimit` and `unshare` are in util-linux; a
 * machine without them runs the tool as it is. Both replace themselves by the tool, so its process id stays.
 */
export type ToolLimits = {
  /** Of processor time, not of waiting. Absent for tools that serve as long as their client stays. */
  readonly cpuSecondsMax?: number;
};

/** Of address space; qemu-nbd reading an 8 TiB image was seen to map 371 MiB. */
export const toolMemoryBytesMax = 4 * 1024 ** 3;

/** The command with its limits before it; unchanged when the tool is not there, so that starting it says so. */
export function limitTool(
  [tool, ...parameters]: readonly [string, ...string[]],
  { cpuSecondsMax }: ToolLimits = {},
): readonly [string, ...string[]] {
  const found = findProgram(tool);
  if (found === undefined) return [tool, ...parameters];
  let limited: [string, ...string[]] = [found, ...parameters];
  const prlimit = findProgram("prlimit");
  if (prlimit !== undefined) {
    const cpu = cpuSecondsMax === undefined ? [] : [`--cpu=${cpuSecondsMax}`];
    limited = [prlimit, `--as=${toolMemoryBytesMax}`, "--core=0", ...cpu, "--", ...limited];
  }
  const unshare = findProgram("unshare");
  if (unshare !== undefined && mayUnshare(unshare)) limited = [unshare, "--net", "--", ...limited];
  return limited;
}

function findProgram(name: string): string | undefined {
  const folders = childEnvironment()["PATH"]?.split(":") ?? [];
  return folders.map((folder) => path.join(folder, name)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

let unshares: boolean | undefined;

/** Tried once: root in a container often may not. */
function mayUnshare(unshare: string): boolean {
  unshares ??= process.getuid?.() === 0 && succeeds(unshare, ["--net", "--", "true"]);
  return unshares;
}

function succeeds(program: string, parameters: readonly string[]): boolean {
  try {
    execFileSync(program, parameters, {
      env: childEnvironment(),
      stdio: "ignore",
      timeout: 5000,
    });
    return true;
  } catch {
    return false;
  }
}
