import { randomUUID } from "node:crypto";
import { constants } from "node:os";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandResult, RunOptions } from "@holdfast/shared/ports/host";
import type { ClientChannel } from "ssh2";
import { collectOutput, outputBytesMaxDefault } from "../collect-output.ts";
import { startDeadline } from "../deadline.ts";
import { quoteCommand } from "./quote-command.ts";

/**
 * Starts the line in a session; tries again while the server has too many, until nobody waits any more. `onOpen` is
 * called before anything else of the session is heard: a quick command's exit comes in one piece with its start.
 */
export type OpenSession = (
  line: string,
  isOver: () => boolean,
  onOpen?: (channel: ClientChannel) => void,
) => Promise<ClientChannel>;

/**
 * Runs one command on an SSH session and collects its output. When time, the signal or the limit of output ends it
 * early, its session is closed and it is killed with all that it started: sshd does not do that, and it refuses SSH's
 * own signals for root, so the processes are found by a mark in their environment.
 */
export async function runOverChannel(request: {
  readonly command: readonly [string, ...string[]];
  readonly options: RunOptions & { readonly timeoutMs: number };
  readonly hostName: string;
  readonly open: OpenSession;
  readonly whyLost: () => Failure;
}): Promise<CommandResult> {
  const { command, options, hostName } = request;
  const what = `${command[0]} on ${hostName}`;
  options.signal?.throwIfAborted();
  const mark = `HOLDFAST_RUN=${randomUUID()}`;
  const environment = { ...options.environment, HOLDFAST_RUN: mark.slice(mark.indexOf("=") + 1) };
  const line = quoteCommand(command, environment);
  const deadline = startDeadline({ timeoutMs: options.timeoutMs, signal: options.signal, what });
  let isOver = false;
  let channel: ClientChannel | undefined;
  const ended = Promise.withResolvers<number>();
  ended.promise.catch(() => undefined);
  const abandon = async (running: ClientChannel): Promise<void> => {
    running.close();
    running.destroy();
    await killMarked(mark, request.open);
  };
  try {
    channel = await deadline.race(
      request.open(
        line,
        () => isOver,
        (opened) =>
          void waitForExit(opened, what, request.whyLost).then(ended.resolve, ended.reject),
      ),
      (late) => void abandon(late),
    );
    const output = collectOutput({
      stdout: channel,
      stderr: channel.stderr,
      bytesMax: options.outputBytesMax ?? outputBytesMaxDefault,
      what,
    });
    // A command that does not read all of its input is no failure by itself.
    channel.on("error", () => undefined);
    channel.end(options.input ?? "");
    const exitCode = await deadline.race(Promise.race([ended.promise, output.exceeded]));
    return { exitCode, ...output.text() };
  } catch (error) {
    if (channel !== undefined) await abandon(channel);
    throw error;
  } finally {
    isOver = true;
    deadline.close();
  }
}

function waitForExit(
  channel: ClientChannel,
  what: string,
  whyLost: () => Failure,
): Promise<number> {
  let exitCode: number | undefined;
  channel.on("exit", (code: number | null, signalName?: string) => {
    exitCode = code ?? exitCodeOfSignal(signalName);
  });
  return new Promise((resolve, reject) => {
    channel.on("close", () => {
      if (exitCode !== undefined) resolve(exitCode);
      else {
        const message = `${what} ended without telling how`;
        reject(new Failure("network.unreachable", { message, cause: whyLost() }));
      }
    });
  });
}

/** As shells say it: 128 and the signal's number. SSH names signals without SIG. */
export function exitCodeOfSignal(name: string | null | undefined): number {
  const text = name ?? "";
  const wanted = text.startsWith("SIG") ? text : `SIG${text}`;
  const found = Object.entries(constants.signals).find(([signal]) => signal === wanted);
  return 128 + (found?.[1] ?? 0);
}

/** Reads the environments of all processes that it may read, and kills those with this very entry. */
const killScript =
  // biome-ignore lint/suspicious/noTemplateCurlyInString: these are the shell's own.
  'for f in $(grep -lszxF -- "$1" /proc/[0-9]*/environ); do f=${f#/proc/}; kill -s KILL "${f%/environ}"; done';
const killTimeoutMs = 5000;

/** As well as can be: a host that cannot be reached any more keeps its process. */
async function killMarked(mark: string, open: OpenSession): Promise<void> {
  let isOver = false;
  const deadline = startDeadline({ timeoutMs: killTimeoutMs, what: "killing a command" });
  try {
    const line = quoteCommand(["sh", "-c", killScript, "sh", mark]);
    const killing = await deadline.race(
      open(line, () => isOver),
      (late) => late.destroy(),
    );
    killing.on("error", () => undefined);
    const closed = new Promise<void>((resolve) => killing.on("close", () => resolve()));
    killing.resume();
    killing.stderr.resume();
    killing.end();
    await deadline.race(closed);
  } catch {
    // Why the command was given up is what the caller must hear, not that it could not be killed.
  } finally {
    isOver = true;
    deadline.close();
  }
}
