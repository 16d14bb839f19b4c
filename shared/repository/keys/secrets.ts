import { createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { Failure } from "../../domain/failure.ts";
import { toHex } from "../format/bytes.ts";

/**
 * What an opened repository knows. Plain values, so that worker threads receive a copy.
 * The identity secret never changes, so that equal bytes keep equal ids and cut points over all key epochs;
 * master keys come in epochs and seal everything.
 */
export type RepositorySecrets = {
  /** 16 bytes. */
  readonly repositoryId: Uint8Array;
  /** 32 bytes. */
  readonly identity: Uint8Array;
  /** Epoch to 32 bytes. */
  readonly masters: ReadonlyMap<number, Uint8Array>;
  /** The epoch that seals what is new; 0, which no epoch is, while that is unclear. */
  readonly activeEpoch: number;
  /** Why it is unclear. */
  readonly unclear?: string | undefined;
};

export type SealKey = {
  readonly key: KeyObject;
  /** Stored beside what the key seals: AES-GCM alone does not commit to its key. */
  readonly commitment: Uint8Array;
};

export function identityKey(
  secrets: RepositorySecrets,
  purpose: "chunk-id" | "digest" | "cut" | "config" | "name",
  lengthBytes = 32,
): Uint8Array {
  return derive(secrets.identity, secrets.repositoryId, `holdfast/1/${purpose}`, lengthBytes);
}

/**
 * `salt` is random and never used twice: a pack's id, or the salt at the head of a sealed object. Fails with
 * `repository.epoch-unknown`, which is no damage: another key may open it; to seal, with `repository.keys-unclear`.
 */
export function sealKey(
  secrets: RepositorySecrets,
  epoch: number,
  purpose: "pack" | "object",
  salt: Uint8Array,
): SealKey {
  const master = secrets.masters.get(epoch);
  if (master === undefined) {
    if (epoch === 0 && secrets.unclear !== undefined) {
      throw new Failure("repository.keys-unclear", { message: secrets.unclear });
    }
    const message = `sealed under key epoch ${epoch}, which is not among those that were opened: ${[...secrets.masters.keys()].join(", ")}`;
    throw new Failure("repository.epoch-unknown", { message, epoch });
  }
  const info = `holdfast/1/${purpose}/${toHex(secrets.repositoryId)}/${epoch}`;
  const both = derive(master, salt, info, 64);
  return splitKey(both);
}

/** 32 bytes of key, 32 of commitment. */
export function splitKey(both: Uint8Array): SealKey {
  return { key: createSecretKey(both.subarray(0, 32)), commitment: both.subarray(32) };
}

export function derive(
  secret: Uint8Array,
  salt: Uint8Array,
  info: string,
  lengthBytes: number,
): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", secret, salt, info, lengthBytes));
}
