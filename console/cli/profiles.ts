import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Environment } from "./context.ts";

/**
 * Named connections in one JSON file below XDG_CONFIG_HOME. The file holds no secret itself,
 * only the paths of files that do.
 */
export type Profile = {
  readonly endpoint: string;
  readonly tokenFile: string;
  /** Passphrase of the repositories behind this profile; only where the same user runs everything (`up`). */
  readonly passphraseFile?: string;
  /** State folder of the local stack behind this profile. */
  readonly state?: string;
};

export type Profiles = {
  readonly path: string;
  /** Undefined when there is no such profile. */
  get(name: string): Promise<Profile | undefined>;
  put(name: string, profile: Profile): Promise<void>;
};

export const defaultProfileName = "local";

export function configFolder(environment: Environment): string {
  return join(environment["XDG_CONFIG_HOME"] || join(homeOf(environment), ".config"), "holdfast");
}

export function stateFolder(environment: Environment): string {
  return join(
    environment["XDG_DATA_HOME"] || join(homeOf(environment), ".local/share"),
    "holdfast",
  );
}

function homeOf(environment: Environment): string {
  return environment["HOME"] || homedir();
}

export function createProfiles(environment: Environment): Profiles {
  const path = join(configFolder(environment), "config.json");
  return {
    path,
    get: async (name) => (await read(path)).get(name),
    put: async (name, profile) => {
      const profiles = await read(path);
      profiles.set(name, profile);
      const text = `${JSON.stringify({ v: 1, profiles: Object.fromEntries(profiles) }, null, 2)}\n`;
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      // Renamed into place, so that a reader never sees half a file.
      await writeFile(`${path}.new`, text, { mode: 0o600 });
      await rename(`${path}.new`, path);
    },
  };
}

async function read(path: string): Promise<Map<string, Profile>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return new Map();
    throw new Failure("input.invalid", { message: `${path} is not readable`, cause: error });
  }
  try {
    return parseProfiles(JSON.parse(text));
  } catch (error) {
    if (isFailure(error)) throw error;
    throw new Failure("input.invalid", { message: `${path} is not valid JSON`, cause: error });
  }
}

function parseProfiles(document: unknown): Map<string, Profile> {
  const profiles = isRecord(document) ? document["profiles"] : undefined;
  if (!isRecord(profiles)) {
    throw new Failure("input.invalid", { message: "the configuration file has no `profiles`" });
  }
  return new Map(
    Object.entries(profiles).map(([name, value]) => [name, parseProfile(name, value)]),
  );
}

function parseProfile(name: string, value: unknown): Profile {
  if (!isRecord(value)) throw invalid(name, "is not an object");
  const text = (field: string): string | undefined => {
    const found = value[field];
    if (found === undefined || typeof found === "string") return found;
    throw invalid(name, `has a ${field} that is not text`);
  };
  const endpoint = text("endpoint");
  const tokenFile = text("tokenFile");
  if (endpoint === undefined || tokenFile === undefined) {
    throw invalid(name, "needs `endpoint` and `tokenFile`");
  }
  const passphraseFile = text("passphraseFile");
  const state = text("state");
  return {
    endpoint,
    tokenFile,
    ...(passphraseFile === undefined ? {} : { passphraseFile }),
    ...(state === undefined ? {} : { state }),
  };
}

const invalid = (name: string, what: string): Failure =>
  new Failure("input.invalid", { message: `profile ${JSON.stringify(name)} ${what}` });

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
