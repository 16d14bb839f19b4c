import { readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "@holdfast/shared/domain/failure";
import { readFileIfAny } from "./json-file.ts";

/**
 * One stack per state folder. The lock file names process id and that process's start time, so that a recycled
 * process id does not keep the folder locked. Throws `busy` while the holder lives. Returns how to unlock.
 */
export function lockState(stateFolder: string): () => void {
  const path = join(stateFolder, "lock");
  const mine = `${process.pid} ${startTime(process.pid) ?? "?"}`;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      writeFileSync(path, mine, { flag: "wx", mode: 0o600 });
      return () => {
        if (readFileIfAny(path) === mine) unlinkSync(path);
      };
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    const holder = readFileIfAny(path);
    if (holder === undefined) continue;
    if (isAlive(holder)) {
      const [pid] = holder.split(" ");
      throw new Failure("busy", {
        message: `Process ${pid} runs a local stack on ${stateFolder} already; stop it first`,
      });
    }
    removeIfStill(path, holder);
  }
  throw new Failure("busy", { message: `Could not lock ${stateFolder}: others lock it too` });
}

function removeIfStill(path: string, holder: string): void {
  if (readFileIfAny(path) === holder) unlinkSync(path);
}

function isAlive(holder: string): boolean {
  const [pidText = "", started = "?"] = holder.trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
  const now = startTime(pid);
  return now === undefined || started === "?" || now === started;
}

/** Clock ticks since boot, from /proc; undefined where there is none (not Linux). */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
