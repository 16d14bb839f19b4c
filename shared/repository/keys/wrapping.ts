import { z } from "zod";
import { Failure } from "../../domain/failure.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes, toHex } from "../format/bytes.ts";
import { decodeKnownHeader, encodeHeader, headerBytes } from "../format/header.ts";
import { decrypt, encrypt, zeroNonce } from "./aead.ts";
import { checkedBody, withChecksum } from "./key-checksum.ts";
import {
  decodeKeyring,
  encodeKeyring,
  epochsMax,
  epochsOf,
  type Keyring,
  vouch,
} from "./keyring.ts";
import { derive, splitKey } from "./secrets.ts";
import { Method, type NewMethod, newSecret, secretOf, type Unlock } from "./unlock.ts";
import { publicKeyOf } from "./x25519.ts";

/**
 * One way into the repository: `keys/wrapping-<id>`. Sealed under a passphrase, a recovery key or a key of AWS KMS it holds all
 * secrets as they were when it was made, and the private key of a pair; to its public key later epochs are sealed, so that
 * a rotation needs the secret of one wrapping only.
 */
export type Wrapping = {
  readonly name: string;
  /** 32 hexadecimal digits: its name's end. */
  readonly id: string;
  /** The newest epoch when it was made. */
  readonly epoch: number;
  /** All that it holds; `epoch` among them. */
  readonly epochs: readonly number[];
  readonly description: WrappingDescription;
  readonly publicKey: Uint8Array;
  readonly commitment: Uint8Array;
  readonly sealed: Uint8Array;
  /** All before `sealed`, and all before the MAC. */
  readonly open: Uint8Array;
  readonly body: Uint8Array;
  readonly mac: Uint8Array;
};

const WrappingDescription = z.strictObject({
  /** For people. */
  label: z.string().max(200),
  /** ISO 8601; for people. */
  createdAt: z.string().max(64),
  method: Method,
});
export type WrappingDescription = z.infer<typeof WrappingDescription>;

const folder = "keys/wrapping-";
const idBytes = 16;

export function wrappingId(name: string): string | undefined {
  const id = name.startsWith(folder) ? name.slice(folder.length) : "";
  return /^[0-9a-f]{32}$/.test(id) ? id : undefined;
}

export async function createWrapping(o: {
  readonly repositoryId: Uint8Array;
  readonly keyring: Keyring;
  /** The newest of the keyring. */
  readonly epoch: number;
  readonly label: string;
  readonly createdAt: string;
  readonly method: NewMethod;
  readonly random: RandomBytes;
}): Promise<{ readonly name: string; readonly bytes: Uint8Array }> {
  const { repositoryId, keyring } = o;
  const name = folder + toHex(o.random(idBytes));
  const { method, secret } = await newSecret(o.method, { repositoryId, name }, o.random);
  const { key, commitment } = wrappingKey(secret, repositoryId);
  const privateKey = Uint8Array.from(o.random(32));
  const json = Buffer.from(JSON.stringify({ label: o.label, createdAt: o.createdAt, method }));
  const epochs = epochsOf(keyring);
  const writer = createByteWriter()
    .bytes(encodeHeader("key", o.epoch))
    .u32(json.length)
    .bytes(json)
    .u32(epochs.length);
  for (const epoch of epochs) writer.u32(epoch);
  const open = writer.bytes(publicKeyOf(privateKey)).bytes(commitment).done();
  const aad = Buffer.concat([open, bound(repositoryId, name)]);
  const plain = Buffer.concat([privateKey, encodeKeyring(keyring)]);
  const sealed = encrypt(key, zeroNonce, aad, plain);
  const body = Buffer.concat([open, sealed]);
  const mac = vouch(keyring.masters, epochs, repositoryId, [body, bound(repositoryId, name)]);
  if (mac === undefined) throw new Error("a keyring vouches for itself");
  const bytes = withChecksum(Buffer.concat([body, mac]));
  // What cannot be opened here will not be opened anywhere.
  openWith(decodeWrapping(bytes, name), secret, repositoryId);
  return { name, bytes };
}

/** Fails with `object.corrupt`. Nothing in it counts before `openWrapping` or `isGenuine`. */
export function decodeWrapping(bytes: Uint8Array, name: string): Wrapping {
  const id = wrappingId(name);
  if (id === undefined) throw corrupt(`${name} is no name of a key wrapping`, { key: name });
  const { epoch } = decodeKnownHeader(bytes, "key", name);
  const whole = checkedBody(bytes, name);
  const body = whole.subarray(0, Math.max(whole.length - 32, 0));
  const reader = createByteReader(body, name);
  reader.take(headerBytes);
  const description = decodeDescription(reader.take(reader.u32()), name);
  const count = reader.count(reader.u32(), 4);
  if (count > epochsMax) throw corrupt(`${name} holds ${count} key epochs`);
  const epochs = Array.from({ length: count }, reader.u32);
  const isRising = epochs.every((one, at) => one > (epochs[at - 1] ?? 0));
  if (!isRising || !epochs.includes(epoch)) throw corrupt(`${name} lists its epochs wrongly`);
  const publicKey = reader.take(32);
  const commitment = reader.take(32);
  const sealed = reader.take(reader.remaining());
  const open = body.subarray(0, body.length - sealed.length);
  const mac = whole.subarray(body.length);
  return { name, id, epoch, epochs, description, publicKey, commitment, sealed, open, body, mac };
}

/**
 * Undefined when the wrapping is for another kind of key. Fails with `repository.key-wrong` for another key of its kind,
 * `object.corrupt` for damage, and with what the key service answers.
 */
export async function openWrapping(
  wrapping: Wrapping,
  unlock: Unlock,
  repositoryId: Uint8Array,
): Promise<OpenedWrapping | undefined> {
  const of = { repositoryId, name: wrapping.name };
  const secret = await secretOf(unlock, wrapping.description.method, of);
  return secret === undefined ? undefined : openWith(wrapping, secret, repositoryId);
}

export type OpenedWrapping = { readonly privateKey: Uint8Array; readonly keyring: Keyring };

/** Made by somebody who knew all of its epochs, and unchanged since. */
export function isGenuine(
  wrapping: Wrapping,
  masters: ReadonlyMap<number, Uint8Array>,
  repositoryId: Uint8Array,
): boolean {
  const parts = [wrapping.body, bound(repositoryId, wrapping.name)];
  const mac = vouch(masters, wrapping.epochs, repositoryId, parts);
  return mac !== undefined && sameBytes(mac, wrapping.mac);
}

function openWith(
  wrapping: Wrapping,
  secret: Uint8Array,
  repositoryId: Uint8Array,
): OpenedWrapping {
  const { name } = wrapping;
  const { key, commitment } = wrappingKey(secret, repositoryId);
  if (!sameBytes(commitment, wrapping.commitment)) {
    throw new Failure("repository.key-wrong", { message: `the key does not open ${name}` });
  }
  const aad = Buffer.concat([wrapping.open, bound(repositoryId, name)]);
  const plain = decrypt(key, zeroNonce, aad, wrapping.sealed, name);
  const privateKey = Uint8Array.from(createByteReader(plain, name).take(32));
  const keyring = decodeKeyring(plain.subarray(32), name);
  const isWhole =
    sameBytes(publicKeyOf(privateKey), wrapping.publicKey) &&
    epochsOf(keyring).join() === wrapping.epochs.join() &&
    isGenuine(wrapping, keyring.masters, repositoryId);
  if (!isWhole) throw corrupt(`${name} holds other keys than it says`, { key: name });
  return { privateKey, keyring };
}

function wrappingKey(secret: Uint8Array, repositoryId: Uint8Array) {
  return splitKey(derive(secret, repositoryId, "holdfast/1/wrap", 64));
}

function decodeDescription(json: Uint8Array, name: string): WrappingDescription {
  try {
    return WrappingDescription.parse(JSON.parse(Buffer.from(json).toString("utf8")));
  } catch (cause) {
    throw corrupt(`${name} has a description that is not valid`, { key: name, cause });
  }
}

function bound(repositoryId: Uint8Array, name: string): Uint8Array {
  return Buffer.concat([repositoryId, Buffer.from(name, "utf8")]);
}
