import type { RandomBytes } from "../../ports/random.ts";
import { decrypt, encrypt, zeroNonce } from "../keys/aead.ts";
import { type RepositorySecrets, sealKey } from "../keys/secrets.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes } from "./bytes.ts";
import { compress, inflate } from "./compression.ts";
import { decodeKnownHeader, encodeHeader, headerBytes, type ObjectType } from "./header.ts";

/**
 * A small record sealed as one object: header (16), salt (32), key commitment (32), ciphertext, tag (16).
 * Its key is derived from the master key and its own random salt; header, commitment, repository and the
 * object's name are authenticated, so it cannot be read under another name, type or repository.
 */
const saltBytes = 32;
const openBytes = headerBytes + saltBytes + 32;
const rawBytesMax = 512 * 1024 * 1024;

export type SealedType = Exclude<
  ObjectType,
  "config" | "key" | "key-epoch" | "data-pack" | "metadata-pack"
>;

export function sealObject(o: {
  readonly secrets: RepositorySecrets;
  readonly type: SealedType;
  readonly name: string;
  readonly plain: Uint8Array;
  readonly random: RandomBytes;
}): Uint8Array {
  const salt = o.random(saltBytes);
  const { key, commitment } = sealKey(o.secrets, o.secrets.activeEpoch, "object", salt);
  const open = Buffer.concat([encodeHeader(o.type, o.secrets.activeEpoch), salt, commitment]);
  const packed = compress(o.plain);
  const body = createByteWriter(8 + (packed ?? o.plain).length)
    .u8(packed === undefined ? 0 : 1)
    .u32(o.plain.length)
    .bytes(packed ?? o.plain)
    .done();
  return Buffer.concat([open, encrypt(key, zeroNonce, bound(open, o.secrets, o.name), body)]);
}

export function openObject(o: {
  readonly secrets: RepositorySecrets;
  readonly type: SealedType;
  readonly name: string;
  readonly bytes: Uint8Array;
}): Uint8Array {
  const { epoch } = decodeKnownHeader(o.bytes, o.type, o.name);
  const reader = createByteReader(o.bytes, o.name);
  reader.take(headerBytes);
  const { key, commitment } = sealKey(o.secrets, epoch, "object", reader.take(saltBytes));
  if (!sameBytes(reader.take(32), commitment)) {
    throw corrupt(`${o.name} is not bound to this repository's key`, { key: o.name });
  }
  const open = o.bytes.subarray(0, openBytes);
  const sealed = reader.take(reader.remaining());
  const body = createByteReader(
    decrypt(key, zeroNonce, bound(open, o.secrets, o.name), sealed, o.name),
    o.name,
  );
  const encoding = body.u8();
  const rawLength = body.u32();
  if (rawLength > rawBytesMax || encoding > 1) throw corrupt(`${o.name} has an unknown encoding`);
  const stored = body.take(body.remaining());
  if (encoding === 1) return inflate(stored, rawLength, o.name);
  if (stored.length !== rawLength) throw corrupt(`${o.name} has another length than it says`);
  return stored;
}

function bound(open: Uint8Array, secrets: RepositorySecrets, name: string): Uint8Array {
  return Buffer.concat([open, secrets.repositoryId, Buffer.from(name, "utf8")]);
}
