import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LocalStackReady } from "@holdfast/shared/contracts/local-stack";
import { Failure, failureCodes, failureId } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Environment } from "./context.ts";

/** The local stack as a process: started, found again by its state folder, stopped. */
export type RunningStack = LocalStackReady & { readonly pid: number };

const startMsMax = 60_000;
const stopMsMax = 60_000;
const pollMs = 100;

const files = (state: string) => ({
  /** What the stack says on stdout: the line that tells that it is ready. */
  ready: join(state, "up.ready"),
  log: join(state, "up.log"),
  pid: join(state, "up.pid"),
});

/** Where the stack, its functions and its mover write their logs. */
export const logFolder = (state: string): string => join(state, "log");

/** The stack that `startStack` left running on this folder, if its process still lives. */
export async function findStack(state: string): Promise<RunningStack | undefined> {
  const { ready, pid: pidFile } = files(state);
  const [pidText, startedText] = (await readIfAny(pidFile))?.split(" ") ?? [];
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 1 || (await startTime(pid)) !== startedText)
    return undefined;
  const line = parseReady(await readIfAny(ready));
  return line === undefined ? undefined : { ...line, pid };
}

export type StackStart = {
  readonly entryPath: string;
  readonly state: string;
  readonly port?: number;
  readonly environment: Environment;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** In a session of its own: it survives this process and its terminal. */
  readonly isDetached: boolean;
};

/** Resolves when it is ready; then `ended` tells the exit code of the process. */
export async function startStack(
  start: StackStart,
): Promise<RunningStack & { readonly ended: Promise<number | null> }> {
  await mkdir(start.state, { recursive: true, mode: 0o700 });
  const { ready, log, pid: pidFile } = files(start.state);
  await rm(ready, { force: true });
  const stdout = openSync(ready, "w", 0o600);
  const stderr = openSync(log, "w", 0o600);
  const { HOLDFAST_PASSPHRASE: _secret, ...environment } = start.environment;
  const port = start.port === undefined ? [] : ["--port", String(start.port)];
  const child = spawn(process.execPath, [start.entryPath, "--state", start.state, ...port], {
    stdio: ["ignore", stdout, stderr],
    env: environment,
    detached: start.isDetached,
  });
  closeSync(stdout);
  closeSync(stderr);
  let hasEnded = false;
  const ended = new Promise<number | null>((resolve) => {
    const end = (code: number | null): void => {
      hasEnded = true;
      resolve(code);
    };
    child.once("error", () => end(null));
    child.once("exit", end);
  });
  const deadline = start.clock.now() + startMsMax;
  for (;;) {
    const line = parseReady(await readIfAny(ready));
    const { pid } = child;
    if (line !== undefined && pid !== undefined && !hasEnded) {
      await writeFile(pidFile, `${pid} ${(await startTime(pid)) ?? ""}`, { mode: 0o600 });
      if (start.isDetached) child.unref();
      return { ...line, pid, ended };
    }
    if (hasEnded) throw await failedStart(log, "the local stack ended while it started");
    if (start.signal.aborted || start.clock.now() > deadline) {
      child.kill("SIGTERM");
      if (start.signal.aborted)
        throw new Failure("cancelled", { message: "cancelled while it started" });
      throw await failedStart(
        log,
        `the local stack was not ready within ${startMsMax / 1000} seconds`,
      );
    }
    await start.clock.sleep(pollMs, start.signal).catch(() => undefined);
  }
}

/** Asks the process to end and waits for it. */
export async function stopStack(state: string, stack: RunningStack, clock: Clock): Promise<void> {
  const started = await startTime(stack.pid);
  process.kill(stack.pid, "SIGTERM");
  const deadline = clock.now() + stopMsMax;
  while (started !== undefined && (await startTime(stack.pid)) === started) {
    if (clock.now() > deadline) {
      throw new Failure("network.timeout", {
        message: `process ${stack.pid} still runs ${stopMsMax / 1000} seconds after it was asked to end; its logs: ${logFolder(state)}`,
      });
    }
    await clock.sleep(pollMs);
  }
  await rm(files(state).pid, { force: true });
}

/** The stack's own words, under its own code where its first line carries one. */
async function failedStart(log: string, what: string): Promise<Failure> {
  const lines = (await readIfAny(log))?.trimEnd().split("\n") ?? [];
  const [, id, message] = /^(HF-[A-Z-]+): (.*)$/.exec(lines[0] ?? "") ?? [];
  const code = failureCodes.find((candidate) => failureId(candidate) === id);
  if (code !== undefined && message !== undefined) return new Failure(code, { message });
  return new Failure("internal", { message: `${what}:\n${lines.slice(-8).join("\n")}` });
}

function parseReady(text: string | undefined): LocalStackReady | undefined {
  const line = text?.split("\n").find((candidate) => candidate.startsWith("{"));
  // Without its line ending the line may still be on its way.
  if (line === undefined || !text?.includes("\n")) return undefined;
  const parsed = LocalStackReady.safeParse(JSON.parse(line));
  return parsed.success ? parsed.data : undefined;
}

/** Clock ticks since boot at which the process began: tells it from a later one with the same id. Undefined when it is gone. */
async function startTime(pid: number): Promise<string | undefined> {
  const stat = await readIfAny(`/proc/${pid}/stat`);
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie has ended, although its parent has not looked yet.
  return fields?.[0] === "Z" ? undefined : fields?.[19];
}

async function readIfAny(path: string): Promise<string | undefined> {
  return await readFile(path, "utf8").catch(() => undefined);
}
