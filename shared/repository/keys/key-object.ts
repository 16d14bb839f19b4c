import { argon2, createHash } from "node:crypto";
import { promisify } from "node:util";
import { Failure } from "../../domain/failure.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes } from "../format/bytes.ts";
import { decodeKnownHeader, encodeHeader, headerBytes } from "../format/header.ts";
import { decrypt, encrypt, zeroNonce } from "./aead.ts";
import { derive, type SealKey, splitKey } from "./secrets.ts";

/** Cost of turning a passphrase into a key: argon2id. */
export type PassphraseCost = { readonly memoryKiB: number; readonly passes: number };
export const defaultPassphraseCost: PassphraseCost = { memoryKiB: 64 * 1024, passes: 3 };

/** What one `keys/<id>` object holds: the master key of an epoch and the identity secret, wrapped by a passphrase. */
export type WrappedKey = {
  readonly epoch: number;
  readonly master: Uint8Array;
  readonly identity: Uint8Array;
};

// A key object comes from outside: without these bounds it could ask for any amount of memory and time.
const memoryKiBMax = 1024 * 1024;
const passesMax = 16;
const saltBytes = 32;
const argon2id = promisify(argon2);

export async function wrapKey(o: {
  readonly name: string;
  readonly repositoryId: Uint8Array;
  readonly key: WrappedKey;
  readonly passphrase: string;
  readonly cost: PassphraseCost;
  readonly random: RandomBytes;
}): Promise<Uint8Array> {
  const salt = o.random(saltBytes);
  const { key, commitment } = await wrappingKey(o.passphrase, salt, o.cost, o.repositoryId);
  const open = createByteWriter()
    .bytes(encodeHeader("key", o.key.epoch))
    .u32(o.cost.memoryKiB)
    .u32(o.cost.passes)
    .bytes(salt)
    .bytes(commitment)
    .done();
  const aad = bound(open, o.repositoryId, o.name);
  const secret = Buffer.concat([o.key.master, o.key.identity]);
  const sealed = encrypt(key, zeroNonce, aad, secret);
  const body = Buffer.concat([open, sealed]);
  // Tells damage from a wrong passphrase; it protects nothing.
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

/** Fails with `repository.key-wrong` for another passphrase, `object.corrupt` for damage. */
export async function unwrapKey(o: {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly repositoryId: Uint8Array;
  readonly passphrase: string;
}): Promise<WrappedKey> {
  const { epoch } = decodeKnownHeader(o.bytes, "key", o.name);
  const checksumAt = o.bytes.length - 32;
  if (checksumAt < headerBytes) throw corrupt(`${o.name} is cut`, { key: o.name });
  const body = o.bytes.subarray(0, checksumAt);
  if (!sameBytes(createHash("sha256").update(body).digest(), o.bytes.subarray(checksumAt))) {
    throw corrupt(`${o.name} does not match its checksum`, { key: o.name });
  }
  const reader = createByteReader(body, o.name);
  reader.take(headerBytes);
  const cost = { memoryKiB: reader.u32(), passes: reader.u32() };
  if (
    cost.memoryKiB < 8 ||
    cost.memoryKiB > memoryKiBMax ||
    cost.passes < 1 ||
    cost.passes > passesMax
  ) {
    throw corrupt(`${o.name} asks for ${cost.memoryKiB} KiB and ${cost.passes} passes`);
  }
  const salt = reader.take(saltBytes);
  const stored = reader.take(32);
  const open = body.subarray(0, body.length - reader.remaining());
  const { key, commitment } = await wrappingKey(o.passphrase, salt, cost, o.repositoryId);
  if (!sameBytes(commitment, stored)) {
    throw new Failure("repository.key-wrong", {
      message: `the passphrase does not open ${o.name}`,
    });
  }
  const aad = bound(open, o.repositoryId, o.name);
  const secret = decrypt(key, zeroNonce, aad, reader.take(reader.remaining()), o.name);
  if (secret.length !== 64) throw corrupt(`${o.name} holds ${secret.length} bytes, expected 64`);
  return { epoch, master: secret.subarray(0, 32), identity: secret.subarray(32) };
}

async function wrappingKey(
  passphrase: string,
  salt: Uint8Array,
  cost: PassphraseCost,
  repositoryId: Uint8Array,
): Promise<SealKey> {
  if (passphrase === "") {
    throw new Failure("input.invalid", { message: "the repository's passphrase is empty" });
  }
  const hash = await argon2id("argon2id", {
    message: passphrase.normalize("NFC"),
    nonce: salt,
    parallelism: 1,
    tagLength: 32,
    memory: cost.memoryKiB,
    passes: cost.passes,
  });
  return splitKey(derive(hash, repositoryId, "holdfast/1/wrap", 64));
}

function bound(open: Uint8Array, repositoryId: Uint8Array, name: string): Uint8Array {
  return Buffer.concat([open, repositoryId, Buffer.from(name, "utf8")]);
}
