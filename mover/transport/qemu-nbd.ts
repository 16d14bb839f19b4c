import { type ChildProcess, spawn } from "node:child_process";
import { access, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "@holdfast/shared/domain/failure";
import { limitTool } from "./limited-tool.ts";
import { childEnvironment } from "./local-host.ts";

/**
 * A qemu-nbd of our own that serves one image file of this machine on a private socket to one client. It is not
 * persistent: it ends when its client goes, so even a `kill -9` of this process leaves none behind.
 */
export type QemuNbd = AsyncDisposable & {
  /** Its one client connects here; when that fails because qemu-nbd could not open the image, fails with the reason. */
  connect<Client>(open: (socketPath: string) => Promise<Client>): Promise<Client>;
  /** Waits until it has ended after its client left; fails with `disk.write-failed` if it ended badly. */
  finished(): Promise<void>;
};

export type QemuNbdOptions = {
  readonly file: string;
  /** Never probed. */
  readonly format: "raw" | "qcow2";
  readonly isReadOnly: boolean;
  readonly signal?: AbortSignal | undefined;
};

const startTimeoutMs = 20_000;
const stopTimeoutMs = 5000;
const explainTimeoutMs = 2000;
const finishTimeoutMs = 120_000;
const pollMs = 10;
const stderrBytesMax = 4096;
const running = new Set<ChildProcess>();
let isExitHandled = false;

/**
 * This, or `connect`, fails with `host.package-missing`, `busy` (a VM has the image open) or `disk.read-failed` with what
 * qemu-nbd said.
 */
export async function startQemuNbd(options: QemuNbdOptions): Promise<QemuNbd> {
  const folder = await mkdtemp(path.join(tmpdir(), "holdfast-nbd-"));
  const socketPath = path.join(folder, "nbd.sock");
  // An explicit description: no format is probed, no protocol read out of the file's name, no backing file followed.
  const image = {
    driver: options.format,
    ...(options.format === "qcow2" ? { backing: null, discard: "unmap" } : {}),
    file: { driver: "file", filename: path.resolve(options.file) },
  };
  const parameters = [
    ...(options.isReadOnly ? ["--read-only"] : []),
    `--socket=${socketPath}`,
    "--shared=1",
    `json:${JSON.stringify(image)}`,
  ];
  const [program, ...limited] = limitTool(["qemu-nbd", ...parameters]);
  const child = spawn(program, limited, {
    env: childEnvironment(),
    stdio: ["ignore", "ignore", "pipe"],
  });
  killAtExit(child);
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-stderrBytesMax);
  });
  const exit = watchExit(child);
  const explain = (error: unknown): unknown =>
    explainStart({ error, exit, stderr, file: options.file });
  const dispose = async (): Promise<void> => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    await exit.promise;
    clearTimeout(timer);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await waitForSocket(socketPath, exit, options.signal);
  } catch (error) {
    await dispose();
    throw explain(error);
  }
  return {
    async connect(open) {
      try {
        return await connectPatiently(() => open(socketPath), exit);
      } catch (error) {
        // It listens before it opens the image: what went wrong is known when it has ended.
        await Promise.race([exit.promise, sleep(explainTimeoutMs, undefined, { ref: false })]);
        throw exit.isOver ? explain(error) : error;
      }
    },
    async finished() {
      const timer = setTimeout(() => child.kill("SIGKILL"), finishTimeoutMs);
      await exit.promise;
      clearTimeout(timer);
      if (exit.code !== 0) {
        const message = `qemu-nbd did not finish ${options.file}: ${stderr.trim() || `exit ${exit.code}`}`;
        throw new Failure("disk.write-failed", { message });
      }
    },
    [Symbol.asyncDispose]: dispose,
  };
}

type Exit = { promise: Promise<void>; isOver: boolean; code: number | null; error?: Error };

function watchExit(child: ChildProcess): Exit {
  const ended = Promise.withResolvers<void>();
  const exit: Exit = { promise: ended.promise, isOver: false, code: null };
  const end = (): void => {
    exit.isOver = true;
    running.delete(child);
    ended.resolve();
  };
  child.once("error", (error) => {
    exit.error = error;
    end();
  });
  child.once("close", (code) => {
    exit.code = code;
    end();
  });
  return exit;
}

/** Looks for the socket's file: connecting to try would be the one client that it serves. */
async function waitForSocket(
  socketPath: string,
  exit: Exit,
  signal: AbortSignal | undefined,
): Promise<void> {
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    if (exit.isOver) throw exit.error ?? new Error(`exit ${exit.code}`);
    const isThere = await access(socketPath).then(
      () => true,
      () => false,
    );
    if (isThere) return;
    if (performance.now() > deadline) throw new Error(`not ready within ${startTimeoutMs} ms`);
    await sleep(pollMs);
  }
}

/** Between making its socket and listening on it there is a moment in which connections are refused. */
async function connectPatiently<Client>(open: () => Promise<Client>, exit: Exit): Promise<Client> {
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      return await open();
    } catch (error) {
      const { cause } = error instanceof Error ? error : {};
      const isRefused = cause instanceof Error && "code" in cause && cause.code === "ECONNREFUSED";
      if (!isRefused || exit.isOver || performance.now() > deadline) throw error;
      await sleep(pollMs);
    }
  }
}

function explainStart(options: {
  readonly error: unknown;
  readonly exit: Exit;
  readonly stderr: string;
  readonly file: string;
}): unknown {
  const { error, exit, stderr, file } = options;
  if (exit.error !== undefined && "code" in exit.error && exit.error.code === "ENOENT") {
    return new Failure("host.package-missing", {
      message: "qemu-nbd is not installed on this machine; it is in the package qemu-utils",
      cause: exit.error,
    });
  }
  if (/Failed to get .* lock/.test(stderr)) {
    return new Failure("busy", {
      message: `${file} is open in another process, probably a running VM: ${stderr.trim()}`,
      cause: error,
    });
  }
  if (stderr === "") return error;
  return new Failure("disk.read-failed", {
    message: `qemu-nbd cannot open ${file}: ${stderr.trim()}`,
    cause: error,
  });
}

function killAtExit(child: ChildProcess): void {
  running.add(child);
  if (isExitHandled) return;
  isExitHandled = true;
  process.on("exit", () => {
    for (const one of running) one.kill("SIGKILL");
  });
}
