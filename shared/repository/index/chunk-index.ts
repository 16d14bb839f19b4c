import { idBytes } from "../chunk/keyed-hash.ts";
import type { PackRecords } from "../pack/pack.ts";

/**
 * Which chunks the repository holds, and where. Only a help: a chunk that it misses is stored twice, a restore never asks it.
 * A port, so that a sparse index can take over beyond what fits in memory.
 */
export interface ChunkIndex {
  find(id: Uint8Array): ChunkPlace | undefined;
  /** Adds the chunks of a pack that is in the store. One thread adds; any may find at the same time. */
  add(pack: { readonly packId: Uint8Array; readonly epoch: number }, records: PackRecords): void;
  readonly count: () => number;
  /** For worker threads, which find but never add. */
  readonly shared: SharedChunkIndex;
}

export type ChunkPlace = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly storedLength: number;
};

export type SharedChunkIndex = {
  readonly slots: SharedArrayBuffer;
  readonly packs: SharedArrayBuffer;
};

/*
 * Slots of 6 words (24 bytes) in generations of doubling size, each filled to 3/4 and searched from the newest on, so growing moves nothing
 * under a reader's feet. Words: 0-2 the id's first 96 bits, 3 pack number, 4 offset, 5 stored length (20 bits) and 12 more bits of the id:
 * 108 bits, so among 10^10 chunks two share them with a probability of 10^-13. Word 0 is written last and 0 means free.
 */
const slotWords = 6;
const headWords = 16;
const firstSlots = 2 ** 14;
const slotsBytesMax = 2 ** 32 - 2 ** 16;
const packWords = 5;
const packsBytesMax = 2 ** 28;

export function createChunkIndex(): ChunkIndex {
  const generationEnd = (generation: number): number =>
    (headWords + firstSlots * (2 ** (generation + 1) - 1) * slotWords) * 4;
  const slots = new SharedArrayBuffer(generationEnd(0), { maxByteLength: slotsBytesMax });
  const packs = new SharedArrayBuffer(packWords * 4, { maxByteLength: packsBytesMax });
  const words = new Uint32Array(slots);
  const packTable = new Uint32Array(packs);
  const shared = { slots, packs };
  const find = createChunkFinder(shared);
  let generation = 0;
  let used = 0;
  let total = 0;
  let packCount = 0;

  /** False when the index has no room left; then new chunks are simply not found later. */
  function makeRoom(): boolean {
    if (used < firstSlots * 2 ** generation * 0.75) return true;
    if (generationEnd(generation + 1) > slotsBytesMax) return false;
    slots.grow(generationEnd(generation + 1));
    generation += 1;
    used = 0;
    Atomics.store(words, 0, generation);
    return true;
  }

  function addOne(id: Uint8Array, packNumber: number, offset: number, storedLength: number): void {
    if (storedLength >= 2 ** 20 || !makeRoom()) return;
    const key = idWords(id);
    const capacity = firstSlots * 2 ** generation;
    const base = headWords + firstSlots * (2 ** generation - 1) * slotWords;
    let slot = key.second & (capacity - 1);
    while (words[base + slot * slotWords] !== 0) slot = (slot + 1) & (capacity - 1);
    const at = base + slot * slotWords;
    words[at + 1] = key.second;
    words[at + 2] = key.third;
    words[at + 3] = packNumber;
    words[at + 4] = offset;
    words[at + 5] = (storedLength | (key.rest << 20)) >>> 0;
    Atomics.store(words, at, key.first);
    used += 1;
    total += 1;
  }

  return {
    shared,
    find,
    count: () => total,
    add: (pack, records) => {
      if ((packCount + 1) * packWords * 4 > packsBytesMax) return;
      const number = packCount;
      packCount += 1;
      if (packCount * packWords * 4 > packs.byteLength) {
        packs.grow(Math.min(packs.byteLength * 2, packsBytesMax));
      }
      const row = Buffer.from(pack.packId);
      for (let word = 0; word < 4; word += 1) {
        packTable[number * packWords + word] = row.readUInt32LE(word * 4);
      }
      packTable[number * packWords + 4] = pack.epoch;
      for (let index = 0; index < records.count; index += 1) {
        if (records.kinds[index] !== 0) continue;
        const id = records.ids.subarray(index * idBytes, (index + 1) * idBytes);
        if (find(id) !== undefined) continue;
        addOne(id, number, records.offsets[index] ?? 0, records.storedLengths[index] ?? 0);
      }
    },
  };
}

export function createChunkFinder(shared: SharedChunkIndex): ChunkIndex["find"] {
  const words = new Uint32Array(shared.slots);
  const packTable = new Uint32Array(shared.packs);
  return (id) => {
    const key = idWords(id);
    for (let generation = Atomics.load(words, 0); generation >= 0; generation -= 1) {
      const capacity = firstSlots * 2 ** generation;
      const base = headWords + firstSlots * (2 ** generation - 1) * slotWords;
      let slot = key.second & (capacity - 1);
      for (;;) {
        const at = base + slot * slotWords;
        const first = Atomics.load(words, at);
        if (first === 0) break;
        const last = words[at + 5] ?? 0;
        if (
          first === key.first &&
          words[at + 1] === key.second &&
          words[at + 2] === key.third &&
          last >>> 20 === key.rest
        ) {
          const row = (words[at + 3] ?? 0) * packWords;
          const packId = Buffer.alloc(16);
          for (let word = 0; word < 4; word += 1) {
            packId.writeUInt32LE(packTable[row + word] ?? 0, word * 4);
          }
          return {
            packId,
            epoch: packTable[row + 4] ?? 0,
            offset: words[at + 4] ?? 0,
            storedLength: last & 0xf_ffff,
          };
        }
        slot = (slot + 1) & (capacity - 1);
      }
    }
    return undefined;
  };
}

function idWords(id: Uint8Array): {
  readonly first: number;
  readonly second: number;
  readonly third: number;
  readonly rest: number;
} {
  const word = (at: number): number =>
    ((id[at] ?? 0) |
      ((id[at + 1] ?? 0) << 8) |
      ((id[at + 2] ?? 0) << 16) |
      ((id[at + 3] ?? 0) << 24)) >>>
    0;
  return { first: word(0) || 1, second: word(4), third: word(8), rest: word(12) & 0xfff };
}
