import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Failure } from "@holdfast/shared/domain/failure";
import { systemClock } from "@holdfast/shared/ports/clock";
import { systemRandom } from "@holdfast/shared/ports/random";
import { type ApiClient, createApiClient } from "./api-client.ts";
import type { Context, Environment, GlobalSettings } from "./context.ts";
import { createMoverProcess } from "./mover-process.ts";
import { createProfiles, defaultProfileName, type Profiles } from "./profiles.ts";
import { runProgram } from "./program.ts";
import { createPrompt } from "./prompt.ts";
import { readSecretFile } from "./read-secret.ts";
import type { TextOutput } from "./render/output.ts";

/**
 * The `holdfast` command: the only wiring of the CLI. It knows shared/ only; the mover and the local stack
 * are started by path as processes of their own.
 */
const moverEntryPath = fileURLToPath(new URL("../../mover/standalone.ts", import.meta.url));
const localStackEntryPath = fileURLToPath(new URL("../../infra/local/main.ts", import.meta.url));

const stdout = toOutput(process.stdout);
const stderr = toOutput(process.stderr);
// A reader that has seen enough (`| head`) is no error of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const code = await runProgram(process.argv.slice(2), {
  stdout,
  stderr,
  version: readVersion(),
  createContext: (settings) => createContext(settings, process.env),
});
process.exitCode = code;

function createContext(settings: GlobalSettings, environment: Environment): Context {
  const profiles = createProfiles(environment);
  const profileName = settings.profile ?? environment["HOLDFAST_PROFILE"] ?? defaultProfileName;
  return {
    stdout,
    stderr,
    environment,
    settings,
    profiles,
    profileName,
    prompt: createPrompt(process.stdin, stderr, { allowed: settings.input }),
    clock: systemClock,
    random: systemRandom,
    mover: createMoverProcess(moverEntryPath, environment),
    localStackEntryPath,
    api: () => connect(settings, environment, profiles, profileName),
    onInterrupt: (handler) => {
      process.on("SIGINT", handler);
      process.on("SIGTERM", handler);
      return {
        [Symbol.dispose]: () => {
          process.off("SIGINT", handler);
          process.off("SIGTERM", handler);
        },
      };
    },
  };
}

async function connect(
  settings: GlobalSettings,
  environment: Environment,
  profiles: Profiles,
  profileName: string,
): Promise<ApiClient> {
  const profile = await profiles.get(profileName);
  const isNamed = settings.profile !== undefined || environment["HOLDFAST_PROFILE"] !== undefined;
  if (profile === undefined && isNamed) {
    throw new Failure("not-found", { message: `${profiles.path} has no profile ${profileName}` });
  }
  const endpoint = settings.endpoint ?? environment["HOLDFAST_ENDPOINT"] ?? profile?.endpoint;
  const tokenFile = environment["HOLDFAST_TOKEN_FILE"] ?? profile?.tokenFile;
  if (endpoint === undefined || tokenFile === undefined) {
    const missing = endpoint === undefined ? "no API address is known" : "no token file is known";
    throw new Failure("auth.denied", {
      message: `${missing}; start a local one with \`holdfast up\`, or set HOLDFAST_ENDPOINT and HOLDFAST_TOKEN_FILE`,
    });
  }
  const token = await readSecretFile("token file", tokenFile);
  return createApiClient({ endpoint, token: token.trim(), clock: systemClock });
}

function toOutput(stream: NodeJS.WriteStream): TextOutput {
  return {
    write: (text) => {
      stream.write(text);
    },
    get isTerminal() {
      return stream.isTTY === true;
    },
    get columns() {
      // Some terminals say 0.
      return stream.columns || 80;
    },
  };
}

function readVersion(): string {
  const manifest: unknown = JSON.parse(
    readFileSync(new URL("package.json", import.meta.url), "utf8"),
  );
  const hasVersion = typeof manifest === "object" && manifest !== null && "version" in manifest;
  return hasVersion ? String(manifest.version) : "unknown";
}
