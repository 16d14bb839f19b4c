import { strict as assert } from "node:assert";
import type { KeyObject } from "node:crypto";
import { Failure } from "../../domain/failure.ts";
import { idBytes, type KeyedHash } from "../chunk/keyed-hash.ts";
import {
  nonceAt,
  openRecord,
  type RecordPlace,
  sealRecord,
  sealStored,
} from "../chunk/sealed-chunk.ts";
import {
  corrupt,
  createByteReader,
  createByteWriter,
  freeBytes,
  sameBytes,
  toHex,
} from "../format/bytes.ts";
import { decodeKnownHeader, encodeHeader, headerBytes, objectTypes } from "../format/header.ts";
import { decrypt, encrypt, tagBytes } from "../keys/aead.ts";
import { type RepositorySecrets, sealKey } from "../keys/secrets.ts";

/**
 * A pack is one object of sealed records with a sealed footer that lists them, so that an index can be rebuilt:
 * header (16), pack id (16), key commitment (32), records, footer, trailer (magic 8, footer's offset and length).
 * A pack id is random and never used again, and a record's nonce is its offset: no nonce ever repeats.
 * Data packs hold chunks of one disk, in disk order; metadata packs hold leaves of one disk's extent map.
 */
export type PackKind = "data-pack" | "metadata-pack";
export const recordKinds = { chunk: 0, "leaf-summary": 1, "leaf-entries": 2 } as const;
export type RecordKind = keyof typeof recordKinds;

export type PackRecords = {
  readonly count: number;
  /** `count` times 32 bytes. */
  readonly ids: Uint8Array;
  readonly offsets: Uint32Array;
  readonly storedLengths: Uint32Array;
  readonly rawLengths: Uint32Array;
  readonly kinds: Uint8Array;
};

export type SealedPack = {
  readonly kind: PackKind;
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly bytes: Uint8Array;
  readonly records: PackRecords;
};

export type PackBuilder = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly sizeBytes: () => number;
  readonly append: (
    kind: RecordKind,
    id: Uint8Array,
    plain: Uint8Array,
  ) => { readonly offset: number; readonly storedLength: number };
  /** What `openStored` gave of another pack. */
  readonly appendStored: (
    kind: RecordKind,
    id: Uint8Array,
    stored: Uint8Array,
    rawLength: number,
  ) => { readonly offset: number; readonly storedLength: number };
  readonly seal: () => SealedPack & { readonly bytes: Uint8Array<SharedArrayBuffer> };
};

const packIdBytes = 16;
/** Header, pack id, commitment; the first record begins here. */
export const packHeadBytes = headerBytes + packIdBytes + 32;
const rowBytes = idBytes + 4 + 4 + 4 + 1;
const trailerBytes = 16;
const trailerMagic = Buffer.from("HOLDPEND", "latin1");

export function packName(packId: Uint8Array): string {
  const hex = toHex(packId);
  return `packs/${hex.slice(0, 2)}/${hex}`;
}

/** Starts a pack in `room`, which is the pack's alone until it is stored; takes larger room when it must. */
export function createPackBuilder(o: {
  readonly kind: PackKind;
  readonly secrets: RepositorySecrets;
  /** 16 bytes, random but for the session that they begin with, and never used again. */
  readonly packId: Uint8Array;
  readonly room: SharedArrayBuffer;
}): PackBuilder {
  const { secrets } = o;
  assert(o.packId.length === packIdBytes);
  const packId = Uint8Array.from(o.packId);
  const epoch = secrets.activeEpoch;
  const { key, commitment } = sealKey(secrets, epoch, "pack", packId);
  let bytes = new Uint8Array(o.room);
  let at = 0;
  let sealed = false;
  const rows = createByteWriter(16 * 1024);
  let count = 0;

  function write(part: Uint8Array): void {
    if (at + part.length > bytes.length) {
      const lengthBytes = Math.max(at + part.length, Math.ceil(bytes.length * 1.25));
      const larger = new Uint8Array(new SharedArrayBuffer(lengthBytes));
      larger.set(bytes.subarray(0, at));
      bytes = larger;
    }
    bytes.set(part, at);
    at += part.length;
  }

  function add(
    kind: RecordKind,
    id: Uint8Array,
    rawLength: number,
    sealAt: (place: RecordPlace) => readonly [ciphertext: Uint8Array, tag: Uint8Array],
  ): { readonly offset: number; readonly storedLength: number } {
    assert(!sealed && rawLength > 0 && id.length === idBytes);
    const offset = at;
    const place = { repositoryId: secrets.repositoryId, packId, packKey: key, offset };
    const [ciphertext, tag] = sealAt(place);
    write(ciphertext);
    freeBytes(ciphertext);
    write(tag);
    const storedLength = at - offset;
    rows.bytes(id).u32(offset).u32(storedLength).u32(rawLength).u8(recordKinds[kind]);
    count += 1;
    return { offset, storedLength };
  }

  const head = Buffer.concat([encodeHeader(o.kind, epoch), packId, commitment]);
  write(head);

  return {
    packId,
    epoch,
    sizeBytes: () => at,
    append: (kind, id, plain) => add(kind, id, plain.length, (place) => sealRecord(place, plain)),
    appendStored: (kind, id, stored, rawLength) =>
      add(kind, id, rawLength, (place) => sealStored(place, stored, rawLength)),
    seal: () => {
      assert(!sealed && count > 0);
      sealed = true;
      const footer = createByteWriter(4 + count * rowBytes)
        .u32(count)
        .bytes(rows.done())
        .done();
      const footerAt = at;
      const aad = footerAad(secrets, head, footerAt);
      const footerSealed = encrypt(key, nonceAt(footerAt), aad, footer);
      write(footerSealed);
      write(createByteWriter(16).bytes(trailerMagic).u32(footerAt).u32(footerSealed.length).done());
      const records = decodeFooter(footer, footerAt, toHex(packId));
      return { kind: o.kind, packId, epoch, bytes: bytes.subarray(0, at), records };
    },
  };
}

export type PackFooter = {
  readonly kind: PackKind;
  readonly epoch: number;
  readonly packKey: KeyObject;
  readonly records: PackRecords;
};

/** Reads a whole pack's footer. Fails with `object.corrupt`. */
export function readPackFooter(o: {
  readonly secrets: RepositorySecrets;
  readonly kind: PackKind;
  readonly packId: Uint8Array;
  readonly bytes: Uint8Array;
}): PackFooter {
  decodeKnownHeader(o.bytes, o.kind, packName(o.packId));
  const head = o.bytes.subarray(0, packHeadBytes);
  return openPackFooter({ ...o, head, tail: o.bytes, sizeBytes: o.bytes.length });
}

/** What a pack's last bytes say of its footer: how many of them must be read to have all of it. Fails with `object.corrupt`. */
export function packTailBytes(o: {
  readonly packId: Uint8Array;
  /** The pack's last 16 bytes or more. */
  readonly tail: Uint8Array;
  readonly sizeBytes: number;
}): { readonly footerAt: number; readonly tailBytes: number } {
  const name = packName(o.packId);
  if (o.sizeBytes < packHeadBytes + trailerBytes || o.tail.length < trailerBytes) {
    throw corrupt(`${name} is cut`, { key: name });
  }
  const trailer = createByteReader(o.tail.subarray(o.tail.length - trailerBytes), name);
  const magic = trailer.take(8);
  const footerAt = trailer.u32();
  const footerLength = trailer.u32();
  if (
    !sameBytes(magic, trailerMagic) ||
    footerAt < packHeadBytes ||
    footerAt + footerLength + trailerBytes !== o.sizeBytes
  ) {
    throw corrupt(`${name} does not end in a footer: it is cut or damaged`, { key: name });
  }
  return { footerAt, tailBytes: footerLength + trailerBytes };
}

/** A pack's footer from its first 64 bytes and at least its last `packTailBytes`. Fails with `object.corrupt`. */
export function openPackFooter(o: {
  readonly secrets: RepositorySecrets;
  readonly packId: Uint8Array;
  readonly head: Uint8Array;
  readonly tail: Uint8Array;
  readonly sizeBytes: number;
}): PackFooter {
  const name = packName(o.packId);
  const kind = isType(o.head, "metadata-pack") ? "metadata-pack" : "data-pack";
  const { epoch } = decodeKnownHeader(o.head, kind, name);
  const reader = createByteReader(o.head, name);
  reader.take(headerBytes);
  if (!sameBytes(reader.take(packIdBytes), o.packId)) {
    throw corrupt(`${name} carries another pack's id`, { key: name });
  }
  const { key, commitment } = sealKey(o.secrets, epoch, "pack", o.packId);
  if (!sameBytes(reader.take(32), commitment)) {
    throw corrupt(`${name} is not bound to this repository's key`, { key: name });
  }
  const { footerAt, tailBytes } = packTailBytes(o);
  if (o.tail.length < tailBytes) throw corrupt(`${name} is cut`, { key: name });
  const from = o.tail.length - tailBytes;
  const footer = decrypt(
    key,
    nonceAt(footerAt),
    footerAad(o.secrets, o.head.subarray(0, packHeadBytes), footerAt),
    o.tail.subarray(from, o.tail.length - trailerBytes),
    `footer of ${name}`,
  );
  return { kind, epoch, packKey: key, records: decodeFooter(footer, footerAt, name) };
}

function isType(head: Uint8Array, kind: PackKind): boolean {
  return head[10] === objectTypes[kind] && head[11] === 0;
}

/**
 * Opens every record of a sealed pack as a reader will, from the footer on. Fails with `seal.mismatch` when
 * anything differs from what went in.
 */
export function checkSealedPack(
  pack: SealedPack,
  o: { readonly secrets: RepositorySecrets; readonly chunkHash: KeyedHash },
): void {
  const name = packName(pack.packId);
  try {
    const { records, packKey } = readPackFooter({ ...o, ...pack });
    if (records.count !== pack.records.count) throw corrupt(`${name} lost records`);
    for (let index = 0; index < records.count; index += 1) {
      const id = openPackRecord({
        ...o,
        packKey,
        packId: pack.packId,
        pack: pack.bytes,
        records,
        index,
      });
      if (!sameBytes(id, recordId(pack.records, index))) {
        throw corrupt(`record ${index} of ${name} has other contents than were cut`);
      }
    }
  } catch (cause) {
    throw new Failure("seal.mismatch", {
      message: `${name} does not open to what went in; it was not uploaded`,
      cause,
    });
  }
}

/** Decrypts and inflates one record of a whole pack and returns the id of what it holds. */
export function openPackRecord(o: {
  readonly secrets: RepositorySecrets;
  readonly chunkHash: KeyedHash;
  readonly packKey: KeyObject;
  readonly packId: Uint8Array;
  readonly pack: Uint8Array;
  readonly records: PackRecords;
  readonly index: number;
}): Uint8Array {
  const offset = o.records.offsets[o.index] ?? 0;
  const stored = o.records.storedLengths[o.index] ?? 0;
  const plain = openRecord(
    { repositoryId: o.secrets.repositoryId, packId: o.packId, packKey: o.packKey, offset },
    o.pack.subarray(offset, offset + stored),
    o.records.rawLengths[o.index] ?? 0,
  );
  const id = o.chunkHash.hash(plain);
  freeBytes(plain);
  if (!sameBytes(id, recordId(o.records, o.index))) {
    throw corrupt(`record ${o.index} of ${packName(o.packId)} does not have its id's contents`);
  }
  return id;
}

export function recordId(records: PackRecords, index: number): Uint8Array {
  return records.ids.subarray(index * idBytes, (index + 1) * idBytes);
}

/** Records lie one after the other from the header to the footer; anything else is corrupt. */
function decodeFooter(footer: Uint8Array, footerAt: number, name: string): PackRecords {
  const reader = createByteReader(footer, `footer of ${name}`);
  const count = reader.u32();
  reader.count(count, rowBytes);
  const records = {
    count,
    ids: new Uint8Array(count * idBytes),
    offsets: new Uint32Array(count),
    storedLengths: new Uint32Array(count),
    rawLengths: new Uint32Array(count),
    kinds: new Uint8Array(count),
  };
  let next = packHeadBytes;
  for (let index = 0; index < count; index += 1) {
    records.ids.set(reader.take(idBytes), index * idBytes);
    const offset = reader.u32();
    const stored = reader.u32();
    const raw = reader.u32();
    const kind = reader.u8();
    if (offset !== next || stored <= tagBytes || stored > raw + tagBytes || kind > 2) {
      throw corrupt(`row ${index} of the footer of ${name} does not follow the one before`);
    }
    next = offset + stored;
    records.offsets[index] = offset;
    records.storedLengths[index] = stored;
    records.rawLengths[index] = raw;
    records.kinds[index] = kind;
  }
  if (next !== footerAt) throw corrupt(`records of ${name} end at ${next}, not at its footer`);
  reader.end();
  return records;
}

function footerAad(secrets: RepositorySecrets, head: Uint8Array, footerAt: number): Uint8Array {
  return createByteWriter(128)
    .bytes(Buffer.from("HFFOOT1\0", "latin1"))
    .bytes(secrets.repositoryId)
    .bytes(head)
    .u32(footerAt)
    .done();
}
