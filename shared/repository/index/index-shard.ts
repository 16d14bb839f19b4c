import { corrupt, createByteReader, createByteWriter } from "../format/bytes.ts";
import type { IndexPack } from "./pack-table.ts";

/**
 * A merged part of the index: the chunks whose ids begin with the same bits, each once, so that a part of the
 * index can be loaded, or merged anew, alone. Its name says which part it is: `index/<hex 32>-<bits>-<the bits in hex>`.
 */
export type IndexShard = {
  readonly packs: readonly IndexPack[];
  readonly count: number;
  /** `count` times the first 16 bytes of an id. */
  readonly ids: Uint8Array;
  /** Positions in `packs`. */
  readonly packNumbers: Uint32Array;
  readonly offsets: Uint32Array;
  readonly storedLengths: Uint32Array;
};

export type ShardPlace = { readonly bits: number; readonly prefix: number };

export const shardIdBytes = 16;
export const shardRowBytes = shardIdBytes + 12;
export const shardBitsMax = 16;
const version = 2;

export function shardSuffix({ bits, prefix }: ShardPlace): string {
  return `-${bits}-${prefix.toString(16)}`;
}

/** Undefined for a segment as writers make them, which has chunks of any id. */
export function parseShardName(name: string): ShardPlace | undefined {
  const found = /^index\/[0-9a-f]{32}-(\d{1,2})-([0-9a-f]{1,4})$/.exec(name);
  if (found === null) return undefined;
  const bits = Number(found[1]);
  const prefix = Number.parseInt(found[2] ?? "", 16);
  return bits <= shardBitsMax && prefix < 2 ** bits ? { bits, prefix } : undefined;
}

/** The first `bits` bits of an id. */
export function prefixOf(id: Uint8Array, bits: number): number {
  return ((id[0] ?? 0) * 256 + (id[1] ?? 0)) >>> (shardBitsMax - bits);
}

export function encodeIndexShard(shard: IndexShard): Uint8Array {
  const writer = createByteWriter(64 + shard.count * shardRowBytes)
    .u8(version)
    .u32(shard.packs.length);
  for (const { packId, epoch } of shard.packs) writer.bytes(packId).u32(epoch);
  writer.u32(shard.count).bytes(shard.ids);
  for (const column of [shard.packNumbers, shard.offsets, shard.storedLengths]) {
    const bytes = new Uint8Array(shard.count * 4);
    const view = new DataView(bytes.buffer);
    for (let row = 0; row < shard.count; row += 1) view.setUint32(row * 4, column[row] ?? 0, true);
    writer.bytes(bytes);
  }
  return writer.done();
}

/** Fails with `object.corrupt`, also when a chunk does not belong here. */
export function decodeIndexShard(bytes: Uint8Array, place: ShardPlace): IndexShard {
  const reader = createByteReader(bytes, "index shard");
  if (reader.u8() !== version) throw corrupt("index shard has an unknown version");
  const packCount = reader.count(reader.u32(), 20);
  const packs = Array.from({ length: packCount }, () => ({
    packId: reader.take(16),
    epoch: reader.u32(),
  }));
  const count = reader.count(reader.u32(), shardRowBytes);
  const ids = reader.take(count * shardIdBytes);
  const column = (): Uint32Array => {
    const part = reader.take(count * 4);
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
    return Uint32Array.from({ length: count }, (_, row) => view.getUint32(row * 4, true));
  };
  const shard = {
    packs,
    count,
    ids,
    packNumbers: column(),
    offsets: column(),
    storedLengths: column(),
  };
  reader.end();
  for (let row = 0; row < count; row += 1) {
    const id = ids.subarray(row * shardIdBytes, (row + 1) * shardIdBytes);
    if ((shard.packNumbers[row] ?? 0) >= packCount || prefixOf(id, place.bits) !== place.prefix) {
      throw corrupt(`row ${row} of an index shard does not belong there`);
    }
  }
  return shard;
}
