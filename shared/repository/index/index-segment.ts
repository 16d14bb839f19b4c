import { strict as assert } from "node:assert";
import { idBytes } from "../chunk/keyed-hash.ts";
import { corrupt, createByteReader, createByteWriter } from "../format/bytes.ts";
import { type PackRecords, recordKinds } from "../pack/pack.ts";

/** The chunks of some packs; written after these packs. Everything in it can be rebuilt from the packs' footers. */
export type IndexedPack = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly records: PackRecords;
};

const version = 1;
const rowBytes = idBytes + 12;

export function encodeIndexSegment(packs: readonly IndexedPack[]): Uint8Array {
  const writer = createByteWriter(64 * 1024)
    .u8(version)
    .u32(packs.length);
  for (const { packId, epoch, records } of packs) {
    assert(records.kinds.every((kind) => kind === recordKinds.chunk));
    writer.bytes(packId).u32(epoch).u32(records.count).bytes(records.ids);
    for (const column of [records.offsets, records.storedLengths, records.rawLengths]) {
      for (const value of column) writer.u32(value);
    }
  }
  return writer.done();
}

export function decodeIndexSegment(bytes: Uint8Array): readonly IndexedPack[] {
  const reader = createByteReader(bytes, "index segment");
  if (reader.u8() !== version) throw corrupt("index segment has an unknown version");
  const packCount = reader.count(reader.u32(), 24);
  const packs = Array.from({ length: packCount }, (): IndexedPack => {
    const packId = reader.take(16);
    const epoch = reader.u32();
    const count = reader.count(reader.u32(), rowBytes);
    const ids = reader.take(count * idBytes);
    const column = (): Uint32Array => Uint32Array.from({ length: count }, reader.u32);
    const records = {
      count,
      ids,
      offsets: column(),
      storedLengths: column(),
      rawLengths: column(),
      kinds: new Uint8Array(count),
    };
    return { packId, epoch, records };
  });
  reader.end();
  return packs;
}
