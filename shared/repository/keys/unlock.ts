import { argon2 } from "node:crypto";
import { promisify } from "node:util";
import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import type { KeyService } from "../../ports/key-service.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { corrupt, toHex } from "../format/bytes.ts";
import { parseRecoveryKey } from "./recovery-key.ts";

/**
 * The three ways into a repository. Each gives 32 secret bytes for one wrapping; the wrapping says, in the open but authenticated,
 * how to come by them.
 */
export const Method = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("passphrase"),
    // A wrapping comes from outside: without these bounds it could ask for any amount of memory and time.
    memoryKiB: z
      .int()
      .min(8)
      .max(1024 * 1024),
    passes: z.int().min(1).max(16),
    salt: z.string().regex(/^[0-9a-f]{64}$/),
  }),
  z.strictObject({ kind: z.literal("recovery-key") }),
  z.strictObject({
    kind: z.literal("aws-kms"),
    keyArn: z.string().min(1).max(2048),
    sealedKey: z.base64().max(8192),
  }),
]);
export type Method = z.infer<typeof Method>;

/** What somebody has to open a repository with. */
export type Unlock =
  | { readonly kind: "passphrase"; readonly passphrase: string }
  | { readonly kind: "recovery-key"; readonly key: Uint8Array }
  | { readonly kind: "aws-kms"; readonly kms: KeyService };

/** What a new wrapping is to be opened with. */
export type NewMethod =
  | {
      readonly kind: "passphrase";
      readonly passphrase: string;
      readonly cost?: PassphraseCost | undefined;
    }
  | { readonly kind: "recovery-key"; readonly words: string }
  | { readonly kind: "aws-kms"; readonly keyArn: string; readonly kms: KeyService };

/** Cost of turning a passphrase into a key: argon2id. */
export type PassphraseCost = { readonly memoryKiB: number; readonly passes: number };
const defaultPassphraseCost: PassphraseCost = { memoryKiB: 64 * 1024, passes: 3 };

/** Given in place of a passphrase: AWS KMS opens the repository, by the process's own AWS credentials. */
export const kmsWords = "aws:kms";

const argon2id = promisify(argon2);

/** A passphrase, or what may stand in its place everywhere: the 24 words of a recovery key, or `aws:kms`. */
export function parseUnlock(text: string, kms: KeyService | undefined): Unlock {
  if (text === "") {
    throw new Failure("input.invalid", { message: "the repository's passphrase is empty" });
  }
  if (text.trim() === kmsWords) {
    if (kms !== undefined) return { kind: "aws-kms", kms };
    throw new Failure("unsupported", { message: "there is no key service here to open with" });
  }
  const key = parseRecoveryKey(text);
  return key === undefined
    ? { kind: "passphrase", passphrase: text }
    : { kind: "recovery-key", key };
}

/** Fails with `input.invalid` for a new passphrase that would be taken for something else. */
export function refuseOtherMeaning(passphrase: string): void {
  const isWords = passphrase.trim() === kmsWords || parseRecoveryKey(passphrase) !== undefined;
  if (passphrase !== "" && !isWords) return;
  const message = "a new passphrase may not be empty, nor 24 words of a recovery key, nor aws:kms";
  throw new Failure("input.invalid", { message });
}

export type WrappingOf = { readonly repositoryId: Uint8Array; readonly name: string };

/** Undefined when this wrapping is for another kind of key. Fails with what the key service answers. */
export async function secretOf(
  unlock: Unlock,
  method: Method,
  of: WrappingOf,
): Promise<Uint8Array | undefined> {
  if (unlock.kind === "passphrase" && method.kind === "passphrase") {
    return await hashPassphrase(unlock.passphrase, method);
  }
  if (unlock.kind === "recovery-key" && method.kind === "recovery-key") return unlock.key;
  if (unlock.kind !== "aws-kms" || method.kind !== "aws-kms") return undefined;
  const bytes = Uint8Array.from(Buffer.from(method.sealedKey, "base64"));
  const secret = await unlock.kms.decrypt({ keyId: method.keyArn, bytes, context: contextOf(of) });
  if (secret.length !== 32) throw corrupt(`${of.name} holds a KMS key of ${secret.length} bytes`);
  return secret;
}

export async function newSecret(
  wanted: NewMethod,
  of: WrappingOf,
  random: RandomBytes,
): Promise<{ readonly method: Method; readonly secret: Uint8Array }> {
  switch (wanted.kind) {
    case "passphrase": {
      refuseOtherMeaning(wanted.passphrase);
      const cost = wanted.cost ?? defaultPassphraseCost;
      const method = { kind: wanted.kind, ...cost, salt: toHex(random(32)) };
      return { method, secret: await hashPassphrase(wanted.passphrase, method) };
    }
    case "recovery-key": {
      const secret = parseRecoveryKey(wanted.words);
      if (secret !== undefined) return { method: { kind: wanted.kind }, secret };
      throw new Failure("input.invalid", { message: "a recovery key has 24 words" });
    }
    case "aws-kms": {
      const secret = Uint8Array.from(random(32));
      const request = { keyId: wanted.keyArn, bytes: secret, context: contextOf(of) };
      const sealedKey = Buffer.from(await wanted.kms.encrypt(request)).toString("base64");
      return { method: { kind: wanted.kind, keyArn: wanted.keyArn, sealedKey }, secret };
    }
    default:
      return wanted satisfies never;
  }
}

const contextOf = ({ repositoryId, name }: WrappingOf) => ({
  "holdfast:repository": toHex(repositoryId),
  "holdfast:object": name,
});

async function hashPassphrase(
  passphrase: string,
  cost: PassphraseCost & { readonly salt: string },
): Promise<Uint8Array> {
  return await argon2id("argon2id", {
    message: passphrase.normalize("NFC"),
    nonce: Buffer.from(cost.salt, "hex"),
    parallelism: 1,
    tagLength: 32,
    memory: cost.memoryKiB,
    passes: cost.passes,
  });
}
