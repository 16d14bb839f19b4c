import { Failure } from "../domain/failure.ts";
import type { CommandResult, HostConnection } from "../ports/host.ts";
import { type Domain, parseDomain } from "./domain-xml.ts";

/**
 * virsh on the host. Every call has a time limit and speaks to one URI in the C locale, so that error texts can be
 * told apart; domains are named by UUID, so that a rename in mid-job does not hit another VM.
 */
export type Virsh = {
  /** The command's stdout; a refusal is a Failure that carries what virsh said. */
  run(args: readonly [string, ...string[]], options?: VirshOptions): Promise<string>;
  /** Leaves the judgement to the caller. */
  try(args: readonly [string, ...string[]], options?: VirshOptions): Promise<CommandResult>;
  /** Fails with `vm.gone`. `live`: as it runs now; `inactive`: as it is defined. */
  domain(uuid: string, which: "live" | "inactive"): Promise<Domain>;
  dumpXml(uuid: string, which: "live" | "inactive"): Promise<string>;
  /** libvirt's own word: `running`, `paused`, `shut off`, … Fails with `vm.gone`. */
  state(uuid: string): Promise<string>;
};

export type VirshOptions = { readonly timeoutMs?: number };

export function createVirsh(connection: HostConnection, uri: string, signal?: AbortSignal): Virsh {
  const attempt: Virsh["try"] = (args, { timeoutMs = 60_000 } = {}) =>
    connection.run(["virsh", "-q", "-c", uri, ...args], {
      environment: { LC_ALL: "C" },
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    });
  const run: Virsh["run"] = async (args, options) => {
    const result = await attempt(args, options);
    if (result.exitCode !== 0) throw virshFailure(args, result);
    return result.stdout;
  };
  const dumpXml: Virsh["dumpXml"] = (uuid, which) =>
    run(
      which === "live"
        ? ["dumpxml", "--domain", uuid]
        : ["dumpxml", "--domain", uuid, "--inactive", "--security-info"],
    );
  return {
    run,
    try: attempt,
    dumpXml,
    domain: async (uuid, which) => parseDomain(await dumpXml(uuid, which)),
    state: async (uuid) => (await run(["domstate", "--domain", uuid])).trim(),
  };
}

/** What virsh said, without its log prefix. */
export function virshMessage(result: CommandResult): string {
  const lines = result.stderr
    .split("\n")
    .map((line) => line.replace(/^error: /, "").trim())
    .filter((line) => line !== "");
  return lines.join("; ").slice(0, 1500) || `exit code ${result.exitCode}`;
}

export function virshFailure(args: readonly string[], result: CommandResult): Failure {
  const said = virshMessage(result);
  const message = `virsh ${args[0]}: ${said}`;
  if (/failed to get domain|Domain not found/i.test(said))
    return new Failure("vm.gone", { message });
  if (result.exitCode === 127) return new Failure("host.package-missing", { message });
  if (/No space left on device/i.test(said)) return new Failure("host.no-space", { message });
  if (/failed to connect to the hypervisor/i.test(said)) {
    return new Failure("network.unreachable", { message });
  }
  if (/cannot acquire state change lock|another backup job is already running/i.test(said)) {
    return new Failure("busy", { message });
  }
  return new Failure("host.command-failed", { message });
}
