import { strict as assert } from "node:assert";
import { type ByteReader, type ByteWriter, corrupt, toHex } from "../format/bytes.ts";

/** Where one leaf is stored: two records, one after the other, in a metadata pack. */
export type LeafRef = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly summaryStored: number;
  readonly summaryRaw: number;
  readonly entriesStored: number;
  readonly entriesRaw: number;
  /** Keyed hashes of the two records. */
  readonly summaryId: Uint8Array;
  readonly entriesId: Uint8Array;
  /** Digest of what the leaf places where. */
  readonly digest: Uint8Array;
};

/**
 * All leaves of a disk in compact rows: a 16 TiB disk has 262 144 of them. A leaf is a reference, `hole` (no data at all),
 * or undefined: not transferred yet.
 */
export type LeafTable = {
  readonly count: number;
  readonly get: (index: number) => LeafRef | "hole" | undefined;
  readonly set: (index: number, ref: LeafRef | "hole") => void;
  readonly encode: (writer: ByteWriter) => void;
};

const rowBytes = 24 + 3 * 32;
const unset = 0xffff_ffff;
const hole = 0xffff_fffe;

export function createLeafTable(count: number): LeafTable {
  const rows = new Map<number, Buffer>();
  const rowsPerPage = 256;
  const packs: { packId: Uint8Array; epoch: number }[] = [];
  const packNumbers = new Map<string, number>();

  function page(index: number): Buffer | undefined {
    return rows.get(Math.floor(index / rowsPerPage));
  }

  const table: LeafTable = {
    count,
    get: (index) => {
      assert(index >= 0 && index < count);
      const rowsOfPage = page(index);
      if (rowsOfPage === undefined) return undefined;
      const at = (index % rowsPerPage) * rowBytes;
      const number = rowsOfPage.readUInt32LE(at);
      if (number === unset) return undefined;
      if (number === hole) return "hole";
      const pack = packs[number];
      assert(pack !== undefined);
      const word = (position: number): number => rowsOfPage.readUInt32LE(at + position * 4);
      const id = (position: number): Uint8Array =>
        rowsOfPage.subarray(at + 24 + position * 32, at + 56 + position * 32);
      return {
        ...pack,
        offset: word(1),
        summaryStored: word(2),
        summaryRaw: word(3),
        entriesStored: word(4),
        entriesRaw: word(5),
        summaryId: id(0),
        entriesId: id(1),
        digest: id(2),
      };
    },
    set: (index, ref) => {
      assert(index >= 0 && index < count);
      let rowsOfPage = page(index);
      if (rowsOfPage === undefined) {
        rowsOfPage = Buffer.alloc(rowsPerPage * rowBytes, 0xff);
        rows.set(Math.floor(index / rowsPerPage), rowsOfPage);
      }
      const at = (index % rowsPerPage) * rowBytes;
      if (ref === "hole") {
        rowsOfPage.writeUInt32LE(hole, at);
        return;
      }
      const key = `${toHex(ref.packId)}/${ref.epoch}`;
      let number = packNumbers.get(key);
      if (number === undefined) {
        number = packs.length;
        packs.push({ packId: Uint8Array.from(ref.packId), epoch: ref.epoch });
        packNumbers.set(key, number);
      }
      const words = [
        number,
        ref.offset,
        ref.summaryStored,
        ref.summaryRaw,
        ref.entriesStored,
        ref.entriesRaw,
      ];
      for (const [position, word] of words.entries()) {
        rowsOfPage.writeUInt32LE(word, at + position * 4);
      }
      rowsOfPage.set(ref.summaryId, at + 24);
      rowsOfPage.set(ref.entriesId, at + 56);
      rowsOfPage.set(ref.digest, at + 88);
    },
    encode: (writer) => {
      writer.u32(packs.length);
      for (const pack of packs) writer.bytes(pack.packId).u32(pack.epoch);
      writer.u32(count);
      for (let index = 0; index < count; index += 1) {
        const rowsOfPage = page(index);
        const at = (index % rowsPerPage) * rowBytes;
        const number = rowsOfPage?.readUInt32LE(at) ?? unset;
        if (rowsOfPage === undefined || number >= hole) writer.u32(number);
        else writer.bytes(rowsOfPage.subarray(at, at + rowBytes));
      }
    },
  };
  return table;
}

export function decodeLeafTable(reader: ByteReader, countExpected: number): LeafTable {
  const packCount = reader.count(reader.u32(), 20);
  const packs = Array.from({ length: packCount }, () => ({
    packId: reader.take(16),
    epoch: reader.u32(),
  }));
  const count = reader.u32();
  if (count !== countExpected) {
    throw corrupt(`disk record lists ${count} leaves, its size needs ${countExpected}`);
  }
  reader.count(count, 4);
  const table = createLeafTable(count);
  for (let index = 0; index < count; index += 1) {
    const number = reader.u32();
    if (number === unset) continue;
    if (number === hole) {
      table.set(index, "hole");
      continue;
    }
    const pack = packs[number];
    if (pack === undefined) throw corrupt(`leaf ${index} of a disk record names no pack`);
    table.set(index, {
      ...pack,
      offset: reader.u32(),
      summaryStored: reader.u32(),
      summaryRaw: reader.u32(),
      entriesStored: reader.u32(),
      entriesRaw: reader.u32(),
      summaryId: reader.take(32),
      entriesId: reader.take(32),
      digest: reader.take(32),
    });
  }
  return table;
}
