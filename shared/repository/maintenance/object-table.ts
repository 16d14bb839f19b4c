import { strict as assert } from "node:assert";

/**
 * What is known of up to many millions of objects whose names end in 16 random bytes: some dozen bytes each, in typed arrays, where a Map of
 * names would take hundreds. Rows keep their numbers; nothing is ever taken out.
 */
export type ObjectTable = {
  readonly count: () => number;
  /** The row of this id; a new one when there is none. */
  readonly add: (id: Uint8Array) => number;
  /** -1 when there is none. */
  readonly find: (id: Uint8Array) => number;
  /** 16 bytes, valid until the next `add`. */
  readonly id: (row: number) => Uint8Array;
  readonly sizeBytes: (row: number) => number;
  readonly setSizeBytes: (row: number, sizeBytes: number) => void;
  readonly has: (row: number, flag: Flag) => boolean;
  readonly set: (row: number, flag: Flag) => void;
  readonly clear: (row: number, flag: Flag) => void;
  /** Bytes that one disk record needs of it at least; the most over all records, so no less than this is needed. */
  readonly neededBytes: (row: number) => number;
  /** Adds to what the record of that number needs of it. Records are taken one after the other. */
  readonly need: (row: number, record: number, bytes: number) => void;
};

/** `listed`: the store has it. `needed`: a point needs it. `read`: what it refers to is marked, too. `doomed`: a condemned list names it.
 * `oldEpoch`: it is sealed under a key epoch before the active one. */
export const flags = { listed: 1, needed: 2, doomed: 4, read: 8, oldEpoch: 16 } as const;
export type Flag = (typeof flags)[keyof typeof flags];

export const objectIdBytes = 16;
const rowsFirst = 1024;
/** Filled to this share at most, so that a search ends soon. */
const loadMax = 0.6;

/** `seed` (8 random bytes) decides places: who chooses names cannot make searches long. */
export function createObjectTable(seed: Uint8Array): ObjectTable {
  const seedView = new DataView(seed.buffer, seed.byteOffset, seed.byteLength);
  const seeds = [seedView.getUint32(0, true), seedView.getUint32(4, true)] as const;
  let capacity = rowsFirst;
  let ids = new Uint8Array(capacity * objectIdBytes);
  let sizes = new Float64Array(capacity);
  let needs = new Float64Array(capacity);
  let currentNeeds = new Float64Array(capacity);
  let currentRecords = new Uint32Array(capacity);
  let marks = new Uint8Array(capacity);
  /** Row + 1; 0 is free. */
  let slots = new Uint32Array(slotCount(capacity));
  let used = 0;

  function place(id: Uint8Array): number {
    let hash = seeds[0];
    for (let at = 0; at < objectIdBytes; at += 4) {
      const word =
        (id[at] ?? 0) |
        ((id[at + 1] ?? 0) << 8) |
        ((id[at + 2] ?? 0) << 16) |
        ((id[at + 3] ?? 0) << 24);
      hash = Math.imul(hash ^ word, 0x9e37_79b1);
      hash ^= hash >>> 15;
    }
    return (Math.imul(hash ^ seeds[1], 0x85eb_ca6b) >>> 0) & (slots.length - 1);
  }

  function isSame(row: number, id: Uint8Array): boolean {
    const from = row * objectIdBytes;
    for (let at = 0; at < objectIdBytes; at += 1) if (ids[from + at] !== id[at]) return false;
    return true;
  }

  /** The slot that holds this id, or the free one where it belongs. */
  function slotOf(id: Uint8Array): number {
    let slot = place(id);
    for (;;) {
      const row = slots[slot] ?? 0;
      if (row === 0 || isSame(row - 1, id)) return slot;
      slot = (slot + 1) & (slots.length - 1);
    }
  }

  function grow(): void {
    capacity *= 2;
    ids = grown(ids, new Uint8Array(capacity * objectIdBytes));
    sizes = grown(sizes, new Float64Array(capacity));
    needs = grown(needs, new Float64Array(capacity));
    currentNeeds = grown(currentNeeds, new Float64Array(capacity));
    currentRecords = grown(currentRecords, new Uint32Array(capacity));
    marks = grown(marks, new Uint8Array(capacity));
    if (slotCount(capacity) === slots.length) return;
    slots = new Uint32Array(slotCount(capacity));
    for (let row = 0; row < used; row += 1) slots[slotOf(idOf(row))] = row + 1;
  }

  function idOf(row: number): Uint8Array {
    return ids.subarray(row * objectIdBytes, (row + 1) * objectIdBytes);
  }

  return {
    count: () => used,
    find: (id) => (slots[slotOf(id)] ?? 0) - 1,
    add: (id) => {
      assert(id.length === objectIdBytes);
      const found = slots[slotOf(id)] ?? 0;
      if (found > 0) return found - 1;
      if (used === capacity) grow();
      const row = used;
      used += 1;
      ids.set(id, row * objectIdBytes);
      slots[slotOf(id)] = row + 1;
      return row;
    },
    id: idOf,
    sizeBytes: (row) => sizes[row] ?? 0,
    setSizeBytes: (row, sizeBytes) => {
      sizes[row] = sizeBytes;
    },
    has: (row, flag) => ((marks[row] ?? 0) & flag) !== 0,
    set: (row, flag) => {
      marks[row] = (marks[row] ?? 0) | flag;
    },
    clear: (row, flag) => {
      marks[row] = (marks[row] ?? 0) & ~flag;
    },
    neededBytes: (row) => needs[row] ?? 0,
    need: (row, record, bytes) => {
      assert(record > 0);
      if (currentRecords[row] !== record) {
        currentRecords[row] = record;
        currentNeeds[row] = 0;
      }
      const sum = (currentNeeds[row] ?? 0) + bytes;
      currentNeeds[row] = sum;
      if (sum > (needs[row] ?? 0)) needs[row] = sum;
    },
  };
}

function slotCount(capacity: number): number {
  return 2 ** Math.ceil(Math.log2(capacity / loadMax));
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}
