import type { RandomBytes } from "../../ports/random.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes, toHex } from "../format/bytes.ts";
import { decodeKnownHeader, encodeHeader, headerBytes } from "../format/header.ts";
import { decrypt, encrypt, tagBytes, zeroNonce } from "./aead.ts";
import { checkedBody, withChecksum } from "./key-checksum.ts";
import {
  decodeKeyring,
  encodeKeyring,
  epochsMax,
  epochsOf,
  type Keyring,
  keyringBytes,
  vouch,
} from "./keyring.ts";
import { derive, splitKey } from "./secrets.ts";
import { publicKeyOf, sharedSecret } from "./x25519.ts";

/**
 * A key epoch after the first: `keys/epoch-<number>-<random>`. It holds all secrets, the new master among them, once for each
 * wrapping that takes part in the epoch, sealed to the wrapping's public key.
 */
export type Epoch = {
  readonly name: string;
  readonly epoch: number;
  /** ISO 8601; for people. */
  readonly createdAt: string;
  /** The epochs that it follows, directly or not. Their masters vouch for it. */
  readonly ancestors: readonly number[];
  readonly rows: readonly EpochRow[];
  readonly ephemeral: Uint8Array;
  /** All before the first row's seal, and all before the MAC. */
  readonly open: Uint8Array;
  readonly body: Uint8Array;
  readonly mac: Uint8Array;
};

export type Recipient = { readonly id: string; readonly publicKey: Uint8Array };
type EpochRow = Recipient & { readonly commitment: Uint8Array; readonly sealed: Uint8Array };

const folder = "keys/epoch-";
export const recipientsMax = 256;

/** The number, or undefined for another name. */
export function epochOfName(name: string): number | undefined {
  const match = /^keys\/epoch-([0-9a-f]{8})-[0-9a-f]{32}$/.exec(name);
  return match === null ? undefined : Number.parseInt(match[1] ?? "", 16);
}

export function createEpoch(o: {
  readonly repositoryId: Uint8Array;
  /** With the new master. */
  readonly keyring: Keyring;
  readonly epoch: number;
  readonly recipients: readonly Recipient[];
  readonly createdAt: string;
  readonly random: RandomBytes;
}): { readonly name: string; readonly bytes: Uint8Array } {
  const { repositoryId, keyring, epoch, recipients } = o;
  const number = epoch.toString(16).padStart(8, "0");
  const name = `${folder}${number}-${toHex(o.random(16))}`;
  const ephemeral = Uint8Array.from(o.random(32));
  const ancestors = epochsOf(keyring).filter((one) => one !== epoch);
  const writer = createByteWriter()
    .bytes(encodeHeader("key-epoch", epoch))
    .text(o.createdAt)
    .u32(ancestors.length);
  for (const ancestor of ancestors) writer.u32(ancestor);
  writer.bytes(publicKeyOf(ephemeral)).u32(recipients.length);
  for (const { id, publicKey } of recipients) writer.bytes(Buffer.from(id, "hex")).bytes(publicKey);
  const open = Uint8Array.from(writer.done());
  const aad = Buffer.concat([open, bound(repositoryId, name)]);
  const plain = encodeKeyring(keyring);
  const rows = recipients.flatMap(({ publicKey }) => {
    const shared = sharedSecret(ephemeral, publicKey);
    const salt = Buffer.concat([publicKeyOf(ephemeral), publicKey]);
    const { key, commitment } = rowKey(shared, salt, repositoryId, epoch);
    return [commitment, encrypt(key, zeroNonce, aad, plain)];
  });
  const body = Buffer.concat([open, ...rows]);
  const parts = [body, bound(repositoryId, name)];
  const mac = vouch(keyring.masters, ancestors, repositoryId, parts);
  if (mac === undefined) throw new Error("an epoch is vouched for by those before it");
  return { name, bytes: withChecksum(Buffer.concat([body, mac])) };
}

/** Fails with `object.corrupt`. Nothing in it counts before its MAC was checked: `isVouchedFor`. */
export function decodeEpoch(bytes: Uint8Array, name: string): Epoch {
  const { epoch } = decodeKnownHeader(bytes, "key-epoch", name);
  if (epoch !== epochOfName(name)) throw corrupt(`${name} holds key epoch ${epoch}`, { key: name });
  const whole = checkedBody(bytes, name);
  const body = whole.subarray(0, Math.max(whole.length - 32, 0));
  const reader = createByteReader(body, name);
  reader.take(headerBytes);
  const createdAt = reader.text();
  const ancestorCount = reader.count(reader.u32(), 4);
  if (ancestorCount < 1 || ancestorCount >= epochsMax) {
    throw corrupt(`${name} follows ${ancestorCount} key epochs`, { key: name });
  }
  const ancestors = Array.from({ length: ancestorCount }, reader.u32);
  const isRising = ancestors.every((one, at) => one > (ancestors[at - 1] ?? 0));
  if (!isRising || ancestors.includes(epoch)) throw corrupt(`${name} lists its epochs wrongly`);
  const ephemeral = reader.take(32);
  const count = reader.count(reader.u32(), 48);
  if (count < 1 || count > recipientsMax) throw corrupt(`${name} is for ${count} wrappings`);
  const recipients = Array.from({ length: count }, () => ({
    id: toHex(reader.take(16)),
    publicKey: reader.take(32),
  }));
  const open = body.subarray(0, body.length - reader.remaining());
  const sealedBytes = keyringBytes(ancestorCount + 1) + tagBytes;
  const rows = recipients.map((recipient) => ({
    ...recipient,
    commitment: reader.take(32),
    sealed: reader.take(sealedBytes),
  }));
  reader.end();
  const mac = whole.subarray(body.length);
  return { name, epoch, createdAt, ancestors, rows, ephemeral, open, body, mac };
}

export function rowFor(epoch: Epoch, recipient: Recipient): EpochRow | undefined {
  return epoch.rows.find(
    ({ id, publicKey }) => id === recipient.id && sameBytes(publicKey, recipient.publicKey),
  );
}

/** Fails with `object.corrupt` unless the row was sealed to this key, for this object as it is. */
export function openRow(
  epoch: Epoch,
  row: EpochRow,
  privateKey: Uint8Array,
  repositoryId: Uint8Array,
): Keyring {
  const { name } = epoch;
  const salt = Buffer.concat([epoch.ephemeral, row.publicKey]);
  const shared = sharedSecret(privateKey, epoch.ephemeral);
  const { key, commitment } = rowKey(shared, salt, repositoryId, epoch.epoch);
  if (!sameBytes(commitment, row.commitment)) {
    throw corrupt(`${name} is not bound to the key of wrapping ${row.id}`, { key: name });
  }
  const aad = Buffer.concat([epoch.open, bound(repositoryId, name)]);
  const keyring = decodeKeyring(decrypt(key, zeroNonce, aad, row.sealed, name), name);
  const epochs = [...epoch.ancestors, epoch.epoch].sort((left, right) => left - right);
  if (epochsOf(keyring).join() === epochs.join()) return keyring;
  throw corrupt(`${name} holds other epochs than it says`, { key: name });
}

/** Undefined when not all that it follows are known. */
export function isVouchedFor(
  epoch: Epoch,
  masters: ReadonlyMap<number, Uint8Array>,
  repositoryId: Uint8Array,
): boolean | undefined {
  const parts = [epoch.body, bound(repositoryId, epoch.name)];
  const mac = vouch(masters, epoch.ancestors, repositoryId, parts);
  return mac === undefined ? undefined : sameBytes(mac, epoch.mac);
}

function rowKey(shared: Uint8Array, salt: Uint8Array, repositoryId: Uint8Array, epoch: number) {
  const info = `holdfast/1/epoch/${toHex(repositoryId)}/${epoch}`;
  return splitKey(derive(shared, salt, info, 64));
}

function bound(repositoryId: Uint8Array, name: string): Uint8Array {
  return Buffer.concat([repositoryId, Buffer.from(name, "utf8")]);
}
