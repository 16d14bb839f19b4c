import { createHmac } from "node:crypto";
import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import { identityKey, type RepositorySecrets } from "../keys/secrets.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes } from "./bytes.ts";
import { decodeHeader, encodeHeader, formatVersion, headerBytes } from "./header.ts";
import { LockSettings } from "./retention.ts";
import { RepositorySettings } from "./settings.ts";

/**
 * The `config` object: header (16), length (u32), JSON, HMAC-SHA-256 (32) under a key that only an opened
 * repository knows. It is read before any key is, so it holds no secret.
 */
export const configName = "config";

const Config = z.object({
  repositoryId: z.string().regex(/^[0-9a-f]{32}$/),
  createdAt: z.string().max(64),
  /** What a reader must know; any name that this release does not know stops it. */
  features: z.array(z.string().max(64)).max(64),
  settings: RepositorySettings,
  /** What the store could do when the repository was created. */
  store: z.object({
    conditionalPut: z.boolean(),
    versioned: z.boolean().optional(),
    objectLock: z.boolean().optional(),
    checksums: z.boolean().optional(),
  }),
  /** Absent: nothing is locked. */
  lock: LockSettings.optional(),
});
export type Config = z.infer<typeof Config>;

const knownFeatures: readonly string[] = [];
const configBytesMax = 64 * 1024;

export function encodeConfig(config: Config, secrets: RepositorySecrets): Uint8Array {
  const json = Buffer.from(JSON.stringify(config), "utf8");
  const body = createByteWriter(json.length + 64)
    .bytes(encodeHeader("config", 0))
    .u32(json.length)
    .bytes(json)
    .done();
  return Buffer.concat([body, mac(body, secrets)]);
}

/** Fails with `repository.format-unknown` for what a newer release wrote, before anything else is looked at. */
export function decodeConfig(bytes: Uint8Array): Config {
  if (bytes.length > configBytesMax) throw corrupt(`config has ${bytes.length} bytes`);
  const { version } = decodeHeader(bytes, "config", configName);
  if (version !== formatVersion) {
    throw new Failure("repository.format-unknown", {
      message: `the repository has format version ${version}, this release knows ${formatVersion}`,
      version,
    });
  }
  const reader = createByteReader(bytes, configName);
  reader.take(headerBytes);
  const json = reader.take(reader.u32());
  let raw: unknown;
  try {
    raw = JSON.parse(Buffer.from(json).toString("utf8"));
  } catch (cause) {
    throw corrupt("config is not JSON", { cause });
  }
  const features = z.object({ features: z.array(z.string()) }).safeParse(raw);
  const unknown = features.data?.features.filter((feature) => !knownFeatures.includes(feature));
  if (unknown !== undefined && unknown.length > 0) {
    throw new Failure("repository.format-unknown", {
      message: `the repository uses ${unknown.join(", ")}, which this release does not know`,
      features: unknown,
    });
  }
  const config = Config.safeParse(raw);
  if (!config.success) throw corrupt(`config is not valid: ${config.error.message}`);
  return config.data;
}

/** The second half of reading: nothing in the config counts until its MAC was checked. */
export function checkConfig(bytes: Uint8Array, secrets: RepositorySecrets): void {
  const macAt = bytes.length - 32;
  const body = bytes.subarray(0, Math.max(macAt, 0));
  if (!sameBytes(mac(body, secrets), bytes.subarray(Math.max(macAt, 0)))) {
    throw corrupt("config does not authenticate: it was changed", { key: configName });
  }
}

function mac(body: Uint8Array, secrets: RepositorySecrets): Uint8Array {
  return createHmac("sha256", identityKey(secrets, "config")).update(body).digest();
}
