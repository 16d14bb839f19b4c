import { strict as assert } from "node:assert";
import { type ByteReader, type ByteWriter, corrupt, toHex } from "../format/bytes.ts";
import type { LeafPack } from "./leaf.ts";

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
  /** The data packs that the leaf needs, as its summary lists them: so garbage collection reads disk records only. */
  readonly packs: readonly LeafPack[];
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
const usageWords = 3;
const unset = 0xffff_ffff;
const hole = 0xffff_fffe;

export function createLeafTable(count: number): LeafTable {
  const rows = new Map<number, Buffer>();
  const rowsPerPage = 256;
  /** For each leaf three words a data pack: its number, entries, stored bytes. */
  const usage = new Map<number, Uint32Array>();
  const packs: { packId: Uint8Array; epoch: number }[] = [];
  const packNumbers = new Map<string, number>();

  function packNumber({ packId, epoch }: { packId: Uint8Array; epoch: number }): number {
    const key = `${toHex(packId)}/${epoch}`;
    const known = packNumbers.get(key);
    if (known !== undefined) return known;
    const number = packs.length;
    packs.push({ packId: Uint8Array.from(packId), epoch });
    packNumbers.set(key, number);
    return number;
  }

  function packsOf(index: number): readonly LeafPack[] {
    const words = usage.get(index) ?? new Uint32Array(0);
    return Array.from({ length: words.length / usageWords }, (_, row) => {
      const [number = 0, entries = 0, storedBytes = 0] = words.subarray(row * usageWords);
      const pack = packs[number];
      assert(pack !== undefined);
      return { ...pack, entries, storedBytes };
    });
  }

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
        packs: packsOf(index),
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
        usage.delete(index);
        return;
      }
      const words = [
        packNumber(ref),
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
      const its = ref.packs.flatMap((pack) => [packNumber(pack), pack.entries, pack.storedBytes]);
      usage.set(index, Uint32Array.from(its));
    },
    encode: (writer) => {
      writer.u32(packs.length);
      for (const pack of packs) writer.bytes(pack.packId).u32(pack.epoch);
      writer.u32(count);
      for (let index = 0; index < count; index += 1) {
        const rowsOfPage = page(index);
        const at = (index % rowsPerPage) * rowBytes;
        const number = rowsOfPage?.readUInt32LE(at) ?? unset;
        if (rowsOfPage === undefined || number >= hole) {
          writer.u32(number);
          continue;
        }
        const its = usage.get(index) ?? new Uint32Array(0);
        writer.bytes(rowsOfPage.subarray(at, at + rowBytes)).u32(its.length / usageWords);
        for (const word of its) writer.u32(word);
      }
    },
  };
  return table;
}

/** Every pack that the leaves need, data and metadata, by its id in hexadecimal. */
export function packsOf(table: LeafTable): ReadonlyMap<string, Uint8Array> {
  const packs = new Map<string, Uint8Array>();
  for (let index = 0; index < table.count; index += 1) {
    const ref = table.get(index);
    if (ref === undefined || ref === "hole") continue;
    for (const { packId } of [ref, ...ref.packs]) packs.set(toHex(packId), packId);
  }
  return packs;
}

/** The same table as `decodeLeafTable` reads, without making it; returns its packs. */
export function visitLeafTable(
  reader: ByteReader,
  countExpected: number,
  visit: {
    readonly onPacks: (count: number) => void;
    /** Once for each pack of each leaf, and for the pack that the leaf itself lies in; `pack` is a position among the ids. */
    readonly onNeed: (pack: number, storedBytes: number) => void;
    readonly onMissing: (leaf: number) => void;
  },
): { readonly packIds: readonly Uint8Array[]; readonly epochs: readonly number[] } {
  const packCount = reader.count(reader.u32(), 20);
  const packIds: Uint8Array[] = [];
  const epochs: number[] = [];
  for (let pack = 0; pack < packCount; pack += 1) {
    packIds.push(reader.take(16));
    epochs.push(reader.u32());
  }
  visit.onPacks(packCount);
  const need = (pack: number, storedBytes: number, leaf: number): void => {
    if (pack >= packCount) throw corrupt(`leaf ${leaf} of a disk record names no pack`);
    visit.onNeed(pack, storedBytes);
  };
  const count = reader.u32();
  if (count !== countExpected) {
    throw corrupt(`disk record lists ${count} leaves, its size needs ${countExpected}`);
  }
  for (let leaf = 0; leaf < count; leaf += 1) {
    const number = reader.u32();
    if (number === hole) continue;
    if (number === unset) {
      visit.onMissing(leaf);
      continue;
    }
    reader.u32();
    const summaryStored = reader.u32();
    reader.u32();
    const entriesStored = reader.u32();
    reader.take(rowBytes - 20);
    need(number, summaryStored + entriesStored, leaf);
    for (let rows = reader.count(reader.u32(), usageWords * 4); rows > 0; rows -= 1) {
      const pack = reader.u32();
      reader.u32();
      need(pack, reader.u32(), leaf);
    }
  }
  return { packIds, epochs };
}

export function decodeLeafTable(reader: ByteReader, countExpected: number): LeafTable {
  const packCount = reader.count(reader.u32(), 20);
  const packs = Array.from({ length: packCount }, () => ({
    packId: reader.take(16),
    epoch: reader.u32(),
  }));
  function packAt(number: number, leaf: number): { packId: Uint8Array; epoch: number } {
    const pack = packs[number];
    if (pack === undefined) throw corrupt(`leaf ${leaf} of a disk record names no pack`);
    return pack;
  }
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
    const pack = packAt(number, index);
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
      packs: Array.from({ length: reader.count(reader.u32(), usageWords * 4) }, () => ({
        ...packAt(reader.u32(), index),
        entries: reader.u32(),
        storedBytes: reader.u32(),
      })),
    });
  }
  return table;
}
