import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import type { Logger } from "@holdfast/shared/ports/logger";

/**
 * The mover as a child process: started again with back-off when it dies, told to drain by SIGTERM and waited for.
 * It hears of our own death through its IPC channel (see mover-parent.ts), so no orphan keeps working.
 */
export type MoverProcess = { stop(): Promise<void> };

const restartMsMin = 500;
const restartMsMax = 30_000;
/** A run this long counts as good: the next restart comes at once again. */
const healthyMs = 60_000;

export function startMover(options: {
  readonly entry: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly logFile: string;
  readonly logger: Logger;
  /** How long it may drain before it is killed. */
  readonly drainMs: number;
}): MoverProcess {
  const { entry, environment, logFile, logger, drainMs } = options;
  let stopping = false;
  let child: ChildProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  let delayMs = restartMsMin;

  function run(): void {
    const log = openSync(logFile, "a", 0o600);
    const startedAt = Date.now();
    const watcher = new URL("mover-parent.ts", import.meta.url).href;
    const started = spawn(process.execPath, ["--import", watcher, entry], {
      env: environment,
      stdio: ["ignore", log, log, "ipc"],
      // A group of its own: Ctrl-C on a terminal is for the stack, which then lets the mover drain.
      detached: true,
    });
    closeSync(log);
    child = started;
    logger.info("mover started", { pid: started.pid });
    started.on("error", (error) => logger.error("mover not started", { message: error.message }));
    started.on("exit", (code, signal) => {
      child = undefined;
      logger.info("mover ended", { pid: started.pid, code, signal });
      if (stopping) return;
      if (Date.now() - startedAt > healthyMs) delayMs = restartMsMin;
      timer = setTimeout(run, delayMs);
      delayMs = Math.min(delayMs * 2, restartMsMax);
    });
  }

  run();
  return {
    stop: async () => {
      stopping = true;
      clearTimeout(timer);
      const running = child;
      if (running === undefined || running.exitCode !== null) return;
      const exit = once(running, "exit");
      running.kill("SIGTERM");
      const killer = setTimeout(() => running.kill("SIGKILL"), drainMs);
      await exit;
      clearTimeout(killer);
    },
  };
}
