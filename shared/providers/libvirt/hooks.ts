import { Failure } from "../../domain/failure.ts";
import type { HookCommand } from "../../domain/policy.ts";
import type { DriverContext } from "../../ports/driver.ts";
import type { LibvirtHost } from "./libvirt-host.ts";

const outputBytesMax = 256 * 1024;

/** Runs the commands around a snapshot. Answers with warnings; one that must not fail throws `host.command-failed`. */
export async function runHooks(
  host: LibvirtHost,
  uuid: string,
  when: "pre" | "post",
  commands: readonly HookCommand[],
  { logger }: DriverContext,
): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const hook of commands) {
    const failure = await runHook(host, uuid, hook);
    logger.info("hook command ran", { when, where: hook.where, failure: failure ?? "none" });
    if (failure === undefined) continue;
    const message = `${when} command ${hook.command[0]} ${hook.where === "host" ? "on the host" : "in the guest"}: ${failure}`;
    if (hook.onFailure === "fail") throw new Failure("host.command-failed", { message });
    warnings.push(message);
  }
  return warnings;
}

/** Undefined when it succeeded. */
async function runHook(
  host: LibvirtHost,
  uuid: string,
  { where, command, timeoutSeconds }: HookCommand,
): Promise<string | undefined> {
  const timeoutMs = timeoutSeconds * 1000;
  const [program = "", ...args] = command;
  try {
    if (where === "guest") {
      const { exitCode, output } = await host.agent(uuid).execute(command, timeoutMs);
      return exitCode === 0 ? undefined : `exit code ${exitCode}: ${output.trim().slice(-1000)}`;
    }
    const result = await host.connection.run([program, ...args], { timeoutMs, outputBytesMax });
    const output = (result.stderr || result.stdout).trim().slice(-1000);
    return result.exitCode === 0 ? undefined : `exit code ${result.exitCode}: ${output}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
