import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** Runs commands of a testbed on this machine. Never interpolates: arguments reach the program as they are. */
const execute = promisify(execFile);
const outputBytesMax = 64 * 1024 * 1024;

/** The command's stdout; fails with its stderr in the message. */
export async function run(
  file: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly environment?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  const { stdout } = await execute(file, [...args], {
    maxBuffer: outputBytesMax,
    env: { ...process.env, LC_ALL: "C", ...options.environment },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  return stdout;
}

/** A shell script with positional arguments: `$1` is `args[0]`. */
export function shell(script: string, args: readonly string[] = [], cwd?: string): Promise<string> {
  return run(
    "bash",
    ["-euo", "pipefail", "-c", script, "testbed", ...args],
    cwd === undefined ? {} : { cwd },
  );
}

export async function succeeds(file: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(file, args);
    return true;
  } catch {
    return false;
  }
}

/** Asks every 100 ms until the answer is true; a testbed that does not come up is an error, not a wait for ever. */
export async function waitUntil(
  what: string,
  check: () => Promise<boolean>,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Installs the Debian packages whose commands or files are missing, and says which. */
export async function installMissing(
  packages: readonly string[],
  say: (line: string) => void,
): Promise<void> {
  const missing: string[] = [];
  for (const name of packages) {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is dpkg's own format.
    const format = "${db:Status-Status}";
    const state = await run("dpkg-query", ["-W", "-f", format, name]).catch(() => "missing");
    if (state !== "installed") missing.push(name);
  }
  if (missing.length === 0) return;
  say(`installing Debian packages: ${missing.join(" ")}`);
  const environment = { DEBIAN_FRONTEND: "noninteractive" };
  const options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"];
  await run("apt-get", ["update", "-q"], { environment });
  await run("apt-get", ["install", ...options, ...missing], { environment });
}
