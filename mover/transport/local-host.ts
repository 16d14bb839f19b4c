import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import net from "node:net";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandResult, HostConnection, RunOptions } from "@holdfast/shared/ports/host";
import { collectOutput, outputBytesMaxDefault } from "./collect-output.ts";
import { startDeadline } from "./deadline.ts";
import { exitCodeOfSignal } from "./ssh/run-over-channel.ts";

/** This machine, by the same port as a remote one. Commands get no shell, and none of our own environment's secrets. */
export function createLocalHost(): HostConnection {
  return {
    name: "local",
    run: runLocally,
    openUnixSocket: (path, options) =>
      openSocket({ path }, `the Unix socket ${path}`, options?.signal),
    openTcpSocket: ({ host, port }, options) =>
      openSocket({ host, port, noDelay: true }, `${host}:${port}`, options?.signal),
    async [Symbol.asyncDispose]() {},
  };
}

const timeoutMsDefault = 60_000;
const socketTimeoutMs = 30_000;
const inherited = ["HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR"] as const;

/** What child processes see of our environment. */
export function childEnvironment(
  more: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const path = process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin";
  const environment: Record<string, string> = { PATH: `${path}:/usr/sbin:/sbin`, LC_ALL: "C" };
  for (const name of inherited) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return { ...environment, ...more };
}

async function runLocally(
  command: readonly [string, ...string[]],
  options: RunOptions = {},
): Promise<CommandResult> {
  const [program, ...parameters] = command;
  const what = `${program} on this machine`;
  options.signal?.throwIfAborted();
  const timeoutMs = options.timeoutMs ?? timeoutMsDefault;
  const deadline = startDeadline({ timeoutMs, signal: options.signal, what });
  // A group of its own, so that what the command starts is killed with it.
  const child = spawn(program, parameters, {
    env: childEnvironment(options.environment),
    stdio: "pipe",
    detached: true,
  });
  try {
    const output = collectOutput({
      stdout: child.stdout,
      stderr: child.stderr,
      bytesMax: options.outputBytesMax ?? outputBytesMaxDefault,
      what,
    });
    const ended = waitForExit(child);
    // A command that does not read all of its input is no failure by itself.
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
    const exit = await deadline.race(Promise.race([ended, output.exceeded]));
    if (exit.missing) return { exitCode: 127, stdout: "", stderr: `${program}: not found` };
    return { exitCode: exit.exitCode, ...output.text() };
  } catch (error) {
    killGroup(child);
    throw error;
  } finally {
    deadline.close();
  }
}

type Exit = { readonly exitCode: number; readonly missing: boolean };

function waitForExit(child: ChildProcessWithoutNullStreams): Promise<Exit> {
  const ended = new Promise<Exit>((resolve, reject) => {
    child.once("close", (code, signal) =>
      resolve({ exitCode: code ?? exitCodeOfSignal(signal), missing: false }),
    );
    child.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") resolve({ exitCode: 127, missing: true });
      else {
        const message = `cannot start a command on this machine: ${error.message}`;
        reject(new Failure("host.command-failed", { message, cause: error }));
      }
    });
  });
  ended.catch(() => undefined);
  return ended;
}

function killGroup(child: ChildProcessWithoutNullStreams): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
  for (const stream of child.stdio) stream?.destroy();
}

async function openSocket(
  address: net.NetConnectOpts,
  what: string,
  signal: AbortSignal | undefined,
): Promise<net.Socket> {
  const deadline = startDeadline({
    timeoutMs: socketTimeoutMs,
    signal,
    what: `connecting to ${what}`,
  });
  const socket = net.connect(address);
  try {
    await deadline.race(
      new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", (cause) =>
          reject(
            new Failure("network.unreachable", {
              message: `cannot connect to ${what}: ${cause.message}`,
              cause,
            }),
          ),
        );
      }),
    );
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    deadline.close();
  }
}
