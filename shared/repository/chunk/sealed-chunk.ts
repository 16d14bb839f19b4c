import { strict as assert } from "node:assert";
import type { KeyObject } from "node:crypto";
import { corrupt, freeBytes, toHex } from "../format/bytes.ts";
import { compress, inflate, inflateInto } from "../format/compression.ts";
import { decrypt, encryptParts, tagBytes } from "../keys/aead.ts";

/**
 * One record of a pack: AES-256-GCM under the pack's key, the record's offset in the pack as nonce, so that no nonce
 * repeats within a pack. Repository, pack, offset and raw length are authenticated.
 * A record is compressed exactly when it is stored in fewer than raw length + 16 bytes.
 */
export type RecordPlace = {
  readonly repositoryId: Uint8Array;
  readonly packId: Uint8Array;
  readonly packKey: KeyObject;
  readonly offset: number;
};

/** In two parts, to be stored one after the other: nothing is copied on the way into the pack. The caller frees the ciphertext. */
export function sealRecord(
  place: RecordPlace,
  plain: Uint8Array,
): readonly [ciphertext: Uint8Array, tag: Uint8Array] {
  const packed = compress(plain);
  assert(packed === undefined || packed.length < plain.length);
  return sealStored(place, packed ?? plain, plain.length);
}

/** The same for what `openStored` gave: it is neither inflated nor compressed on its way to another pack. */
export function sealStored(
  place: RecordPlace,
  stored: Uint8Array,
  rawLength: number,
): readonly [ciphertext: Uint8Array, tag: Uint8Array] {
  assert(stored.length > 0 && stored.length <= rawLength);
  const aad = recordAad(place, rawLength);
  return encryptParts(place.packKey, nonceAt(place.offset), aad, stored);
}

/** What is under the seal, compressed or not; the result has memory of its own, to be freed. Fails with `object.corrupt`. */
export function openStored(place: RecordPlace, sealed: Uint8Array, rawLength: number): Uint8Array {
  return decryptRecord(place, sealed, rawLength, recordName(place));
}

/** The result has memory of its own, to be freed. */
export function openRecord(place: RecordPlace, sealed: Uint8Array, rawLength: number): Uint8Array {
  const name = recordName(place);
  const plain = decryptRecord(place, sealed, rawLength, name);
  if (plain.length === rawLength) return plain;
  const inflated = inflate(plain, rawLength, name);
  freeBytes(plain);
  return inflated;
}

/** Fills `out`, whose length is the record's raw length. After a failure its contents mean nothing. */
export function openRecordInto(place: RecordPlace, sealed: Uint8Array, out: Uint8Array): void {
  const name = recordName(place);
  const plain = decryptRecord(place, sealed, out.length, name);
  if (plain.length === out.length) out.set(plain);
  else inflateInto(plain, out, name);
  freeBytes(plain);
}

function decryptRecord(
  place: RecordPlace,
  sealed: Uint8Array,
  rawLength: number,
  name: string,
): Uint8Array {
  if (sealed.length > rawLength + tagBytes) throw corrupt(`${name} is longer than it may be`);
  const aad = recordAad(place, rawLength);
  return decrypt(place.packKey, nonceAt(place.offset), aad, sealed, name);
}

function recordName({ offset, packId }: RecordPlace): string {
  return `record at ${offset} of pack ${toHex(packId)}`;
}

export function nonceAt(offset: number): Uint8Array {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(offset, 0);
  return nonce;
}

function recordAad(place: RecordPlace, rawLength: number): Uint8Array {
  const aad = Buffer.alloc(48);
  aad.write("HFRECRD1", 0, "latin1");
  aad.set(place.repositoryId, 8);
  aad.set(place.packId, 24);
  aad.writeUInt32LE(place.offset, 40);
  aad.writeUInt32LE(rawLength, 44);
  return aad;
}
