import { constants } from "node:os";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandResult, RunOptions } from "@holdfast/shared/ports/host";
import type { ClientChannel } from "ssh2";
import { collectOutput, outputBytesMaxDefault } from "../collect-output.ts";
import { startDeadline } from "../deadline.ts";
import { quoteCommand } from "./quote-command.ts";

/**
 * Runs one command on an SSH session and collects its output. When time, the signal or the limit of output ends it
 * early, the command is killed as far as the server allows (OpenSSH 7.9 and newer) and its session is closed.
 */
export async function runOverChannel(request: {
  readonly command: readonly [string, ...string[]];
  readonly options: RunOptions & { readonly timeoutMs: number };
  readonly hostName: string;
  readonly open: (line: string) => Promise<ClientChannel>;
  readonly whyLost: () => Failure;
}): Promise<CommandResult> {
  const { command, options, hostName } = request;
  const what = `${command[0]} on ${hostName}`;
  const line = quoteCommand(command, options.environment);
  const deadline = startDeadline({ timeoutMs: options.timeoutMs, signal: options.signal, what });
  let channel: ClientChannel | undefined;
  try {
    channel = await deadline.race(request.open(line), kill);
    const output = collectOutput({
      stdout: channel,
      stderr: channel.stderr,
      bytesMax: options.outputBytesMax ?? outputBytesMaxDefault,
      what,
    });
    const ended = waitForExit(channel, what, request.whyLost);
    // A command that does not read all of its input is no failure by itself.
    channel.on("error", () => undefined);
    channel.end(options.input ?? "");
    const exitCode = await deadline.race(Promise.race([ended, output.exceeded]));
    return { exitCode, ...output.text() };
  } catch (error) {
    if (channel !== undefined) kill(channel);
    throw error;
  } finally {
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
  const ended = new Promise<number>((resolve, reject) => {
    channel.on("close", () => {
      if (exitCode !== undefined) resolve(exitCode);
      else {
        const message = `${what} ended without telling how`;
        reject(new Failure("network.unreachable", { message, cause: whyLost() }));
      }
    });
  });
  ended.catch(() => undefined);
  return ended;
}

/** As shells say it: 128 and the signal's number. SSH names signals without SIG. */
export function exitCodeOfSignal(name: string | null | undefined): number {
  const text = name ?? "";
  const wanted = text.startsWith("SIG") ? text : `SIG${text}`;
  const found = Object.entries(constants.signals).find(([signal]) => signal === wanted);
  return 128 + (found?.[1] ?? 0);
}

function kill(channel: ClientChannel): void {
  try {
    channel.signal("KILL");
    channel.close();
  } catch {
    // The connection is gone already, and the command's session with it.
  }
  channel.destroy();
}
