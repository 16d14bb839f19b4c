import { toHex } from "../format/bytes.ts";
import { type IndexShard, shardIdBytes } from "./index-shard.ts";
import type { IndexPack } from "./pack-table.ts";

/** Collects rows of a shard; of several rows for one id the first stays. */
export type ShardBuilder = {
  readonly count: () => number;
  /** `id` needs its first 16 bytes only. */
  readonly add: (pack: IndexPack, id: Uint8Array, offset: number, storedLength: number) => void;
  readonly done: () => IndexShard;
};

const rowsFirst = 256;

export function createShardBuilder(): ShardBuilder {
  const packs: IndexPack[] = [];
  const packNumbers = new Map<string, number>();
  let lastPack: { readonly pack: IndexPack; readonly number: number } | undefined;
  let ids = new Uint8Array(rowsFirst * shardIdBytes);
  // Pack number, offset, stored length.
  let places = new Uint32Array(rowsFirst * 3);
  // Row numbers plus one, in open addressing.
  let slots = new Uint32Array(rowsFirst * 2);
  let count = 0;

  function numberOf(pack: IndexPack): number {
    if (lastPack?.pack === pack) return lastPack.number;
    const key = toHex(pack.packId);
    let number = packNumbers.get(key);
    if (number === undefined) {
      number = packs.length;
      packs.push({ packId: Uint8Array.from(pack.packId), epoch: pack.epoch });
      packNumbers.set(key, number);
    }
    lastPack = { pack, number };
    return number;
  }

  function slotOf(id: Uint8Array): number {
    const last = slots.length - 1;
    let slot = (((id[12] ?? 0) << 16) | ((id[13] ?? 0) << 8) | (id[14] ?? 0)) & last;
    for (;;) {
      const row = (slots[slot] ?? 0) - 1;
      if (row < 0 || isRow(row, id)) return slot;
      slot = (slot + 1) & last;
    }
  }

  function isRow(row: number, id: Uint8Array): boolean {
    for (let at = 0; at < shardIdBytes; at += 1) {
      if (ids[row * shardIdBytes + at] !== id[at]) return false;
    }
    return true;
  }

  function grow(): void {
    ids = enlarge(ids, new Uint8Array(ids.length * 2));
    places = enlarge(places, new Uint32Array(places.length * 2));
    slots = new Uint32Array(slots.length * 2);
    for (let row = 0; row < count; row += 1) {
      slots[slotOf(ids.subarray(row * shardIdBytes, (row + 1) * shardIdBytes))] = row + 1;
    }
  }

  return {
    count: () => count,
    add: (pack, id, offset, storedLength) => {
      if ((count + 1) * shardIdBytes > ids.length) grow();
      const slot = slotOf(id);
      if (slots[slot] !== 0) return;
      ids.set(id.subarray(0, shardIdBytes), count * shardIdBytes);
      places[count * 3] = numberOf(pack);
      places[count * 3 + 1] = offset;
      places[count * 3 + 2] = storedLength;
      count += 1;
      slots[slot] = count;
    },
    done: () => {
      const column = (at: number): Uint32Array =>
        Uint32Array.from({ length: count }, (_, row) => places[row * 3 + at] ?? 0);
      return {
        packs,
        count,
        ids: ids.subarray(0, count * shardIdBytes),
        packNumbers: column(0),
        offsets: column(1),
        storedLengths: column(2),
      };
    },
  };
}

function enlarge<Column extends Uint8Array | Uint32Array>(old: Column, larger: Column): Column {
  larger.set(old);
  return larger;
}
