import { idBytes } from "../chunk/keyed-hash.ts";
import type { PackRecords } from "../pack/pack.ts";
import { createPackTable, type IndexPack, packAt } from "./pack-table.ts";

/**
 * Which chunks the repository holds, and where. Only a help: a chunk that it misses is stored twice, a restore never asks it.
 *
 * While all chunks fit into the memory that it may use, it knows all of them (24 bytes each). Beyond that it is sparse, after
 * Lillibridge et al., "Sparse Indexing" (FAST 2009): it knows the share of the chunks whose ids begin with zero bits (hooks), and a hook that is
 * found names a pack whose other chunks are worth loading, since packs hold chunks in disk order.
 */
export interface ChunkIndex {
  find(id: Uint8Array): ChunkPlace | undefined;
  /** Adds the chunks of a pack that is in the store. One thread adds; any may find at the same time. */
  add(pack: IndexPack, records: Pick<PackRecords, Columns>): void;
  /** The same for one chunk; `id` needs its first 16 bytes only. */
  addOne(pack: IndexPack, id: Uint8Array, offset: number, storedLength: number): void;
  /** Chunks known now, hooks only when sparse. */
  readonly count: () => number;
  /** Ids that begin with this many zero bits are hooks; 0: every id is known. */
  readonly hookBits: number;
  /** Packs of hooks found since the last call; `addNeighbours` makes their chunks known for a while. Empty unless sparse. */
  readonly wanted: () => readonly IndexPack[];
  readonly addNeighbours: (pack: IndexPack, records: Pick<PackRecords, Columns>) => void;
  /** For worker threads, which find but never add. */
  readonly shared: SharedChunkIndex;
}

type Columns = "count" | "ids" | "offsets" | "storedLengths" | "kinds";

export type ChunkPlace = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly storedLength: number;
};

export type SharedChunkIndex = {
  readonly slots: SharedArrayBuffer;
  readonly packs: SharedArrayBuffer;
  readonly neighbours: SharedArrayBuffer;
};

export type ChunkIndexSize = {
  /** What will be loaded at first; the table for it is made in one piece, without room to spare. */
  readonly chunksExpected?: number;
  /** Memory for slots, in bytes. */
  readonly bytesMax?: number;
};

/*
 * A slot is 5 words, 160 bits: 89 of the id, pack number 24, offset 27, stored length 20. Where a slot lies depends on 32 further bits of the id.
 * An id that is not there is taken for another one with a probability below 2^-86 a look: 10^12 looks, 10^-14.
 * Slots lie in tables (generations), each filled to 0.87 and searched from the newest on, so growing moves nothing under a reader's feet:
 * the first has room for what is expected, the next ones for as much as is there already, at most. Word 0 is written last and 0 means free.
 */
const slotWords = 5;
const fill = 0.87;
const generationsMax = 48;
const headWords = 4 + 2 * generationsMax;
const firstChunks = 2 ** 13;
const growthChunksMax = 2 ** 21;
const slotsBytesMax = 2 ** 32 - 2 ** 16;
/** 512 MiB: 22 million chunks, about 2.8 TiB of unique data. */
const bytesMaxDefault = 2 ** 29;
const offsetsEnd = 2 ** 27;
const lengthsEnd = 2 ** 20;

/** Tables of a sparse index's neighbours; the oldest is emptied when the newest is full. */
const neighbourTables = 4;
const wantedRing = 1024;
const neighbourHeadWords = 8 + wantedRing;

const headGeneration = 0;
const headHookBits = 1;

export function createChunkIndex(size: ChunkIndexSize = {}): ChunkIndex {
  const bytesMax = Math.min(size.bytesMax ?? bytesMaxDefault, slotsBytesMax);
  const expected = size.chunksExpected ?? 0;
  const hookBits = hookBitsFor(expected, bytesMax);
  const shared = allocate({ bytesMax, isSparse: hookBits > 0 });
  const words = new Uint32Array(shared.slots);
  const packs = createPackTable(shared.packs);
  const neighbours = createNeighbours(shared.neighbours);
  words[headHookBits] = hookBits;
  const find = createChunkFinder(shared);
  const look = createFinder(shared, () => undefined);
  let generation = -1;
  let room = 0;
  let total = 0;
  openGeneration(Math.max(firstChunks, Math.ceil((expected / 2 ** hookBits) * 1.02)));

  /** False when the index has no room left; then new chunks are simply not found later. */
  function openGeneration(chunks: number): boolean {
    const begin =
      generation < 0
        ? headWords
        : (words[4 + 2 * generation] ?? 0) + (words[5 + 2 * generation] ?? 0) * slotWords;
    const left = Math.floor((shared.slots.maxByteLength / 4 - begin) / slotWords);
    const capacity = Math.min(Math.ceil(chunks / fill), left);
    if (generation + 1 >= generationsMax || capacity < 2) return false;
    shared.slots.grow((begin + capacity * slotWords) * 4);
    generation += 1;
    words[4 + 2 * generation] = begin;
    words[5 + 2 * generation] = capacity;
    room = Math.max(1, Math.floor(capacity * fill));
    Atomics.store(words, headGeneration, generation);
    return true;
  }

  function put(key: IdWords, packNumber: number, offset: number, storedLength: number): void {
    if (room === 0 && !openGeneration(Math.min(Math.max(total, firstChunks), growthChunksMax))) {
      return;
    }
    const table = {
      begin: words[4 + 2 * generation] ?? 0,
      capacity: words[5 + 2 * generation] ?? 0,
    };
    writeSlot(words, table, key, { packNumber, offset, storedLength });
    room -= 1;
    total += 1;
  }

  function addOne(pack: IndexPack, id: Uint8Array, offset: number, storedLength: number): void {
    const number = packs.number(pack);
    if (number === undefined || offset >= offsetsEnd || storedLength >= lengthsEnd) return;
    if (hookBits > 0 && !isHook(id, hookBits)) return;
    if (look(id) === undefined) put(idWords(id), number, offset, storedLength);
  }

  function each(
    records: Pick<PackRecords, Columns>,
    use: (id: Uint8Array, offset: number, storedLength: number) => void,
  ): void {
    for (let index = 0; index < records.count; index += 1) {
      if (records.kinds[index] !== 0) continue;
      const id = records.ids.subarray(index * idBytes, (index + 1) * idBytes);
      use(id, records.offsets[index] ?? 0, records.storedLengths[index] ?? 0);
    }
  }

  const addNeighbours: ChunkIndex["addNeighbours"] = (pack, records) => {
    const number = packs.number(pack);
    if (number === undefined || hookBits === 0) return;
    each(records, (id, offset, storedLength) => {
      if (offset >= offsetsEnd || storedLength >= lengthsEnd || look(id) !== undefined) return;
      neighbours.put(idWords(id), { packNumber: number, offset, storedLength });
    });
  };

  return {
    shared,
    hookBits,
    find,
    count: () => total,
    addOne,
    add: (pack, records) => {
      each(records, (id, offset, storedLength) => addOne(pack, id, offset, storedLength));
      addNeighbours(pack, records);
    },
    addNeighbours,
    wanted: () => neighbours.wanted().map((number) => packAt(packs.words, number)),
  };
}

/** Half of the memory is for hooks, half for neighbours, once not everything fits. */
function hookBitsFor(chunksExpected: number, bytesMax: number): number {
  const fits = (chunks: number, bytes: number): boolean => (chunks / fill) * slotWords * 4 <= bytes;
  if (fits(chunksExpected, bytesMax)) return 0;
  let bits = 1;
  while (!fits(chunksExpected / 2 ** bits, bytesMax / 2)) bits += 1;
  return bits;
}

function allocate(o: { readonly bytesMax: number; readonly isSparse: boolean }): SharedChunkIndex {
  const slotsMax = o.isSparse ? Math.ceil(o.bytesMax / 2) : o.bytesMax;
  const slots = new SharedArrayBuffer(headWords * 4, {
    maxByteLength: Math.max(Math.floor(slotsMax / 4) * 4, (headWords + firstChunks * 8) * 4),
  });
  const tableWords = o.isSparse
    ? Math.floor(o.bytesMax / 2 / neighbourTables / 4 / slotWords) * slotWords
    : 0;
  const neighbours = new SharedArrayBuffer((neighbourHeadWords + tableWords * neighbourTables) * 4);
  return { slots, packs: createPackTable().shared, neighbours };
}

export function createChunkFinder(shared: SharedChunkIndex): ChunkIndex["find"] {
  return createFinder(shared, createWanter(shared.neighbours));
}

function createFinder(
  shared: SharedChunkIndex,
  want: (packNumber: number) => void,
): ChunkIndex["find"] {
  const words = new Uint32Array(shared.slots);
  const packWords = new Uint32Array(shared.packs);
  const findNeighbour = createNeighbourFinder(shared.neighbours);
  const hookBits = words[headHookBits] ?? 0;

  function place(slot: Slot): ChunkPlace {
    const { packNumber, offset, storedLength } = slot;
    return { ...packAt(packWords, packNumber), offset, storedLength };
  }

  return (id) => {
    const key = idWords(id);
    if (hookBits > 0 && !isHook(id, hookBits)) {
      const slot = findNeighbour(key);
      return slot === undefined ? undefined : place(slot);
    }
    for (let generation = Atomics.load(words, headGeneration); generation >= 0; generation -= 1) {
      const table = {
        begin: words[4 + 2 * generation] ?? 0,
        capacity: words[5 + 2 * generation] ?? 0,
      };
      const slot = readSlot(words, table, key);
      if (slot === undefined) continue;
      if (hookBits > 0) want(slot.packNumber);
      return place(slot);
    }
    return undefined;
  };
}

type Slot = {
  readonly packNumber: number;
  readonly offset: number;
  readonly storedLength: number;
};
type Table = { readonly begin: number; readonly capacity: number };

function writeSlot(words: Uint32Array, table: Table, key: IdWords, slot: Slot): void {
  const { begin, capacity } = table;
  let number = Math.floor((key.home * capacity) / 2 ** 32);
  while (words[begin + number * slotWords] !== 0) number = number + 1 === capacity ? 0 : number + 1;
  const at = begin + number * slotWords;
  const { packNumber, offset, storedLength } = slot;
  words[at + 1] = key.second;
  words[at + 2] = (key.third << 7) | (offset >>> 20);
  words[at + 3] = ((offset & 0xf_ffff) << 12) | (storedLength >>> 8);
  words[at + 4] = ((storedLength & 0xff) << 24) | packNumber;
  Atomics.store(words, at, key.first);
}

function readSlot(words: Uint32Array, table: Table, key: IdWords): Slot | undefined {
  const { begin, capacity } = table;
  if (capacity === 0) return undefined;
  let number = Math.floor((key.home * capacity) / 2 ** 32);
  for (;;) {
    const at = begin + number * slotWords;
    const first = Atomics.load(words, at);
    if (first === 0) return undefined;
    if (first === key.first && words[at + 1] === key.second) {
      const third = words[at + 2] ?? 0;
      if (third >>> 7 === key.third) {
        const fourth = words[at + 3] ?? 0;
        const fifth = words[at + 4] ?? 0;
        return {
          packNumber: fifth & 0xff_ffff,
          offset: (third & 0x7f) * 2 ** 20 + (fourth >>> 12),
          storedLength: (fourth & 0xfff) * 256 + (fifth >>> 24),
        };
      }
    }
    number = number + 1 === capacity ? 0 : number + 1;
  }
}

/*
 * Neighbours: [0] the newest table, [1 + n] how often table n was emptied, twice, odd while it is; [6] packs wanted so far; then the ring
 * of wanted packs, then the tables.
 */
const neighbourNewest = 0;
const wantedCount = 6;

function neighbourTable(words: Uint32Array, number: number): Table {
  const capacity = Math.floor((words.length - neighbourHeadWords) / neighbourTables / slotWords);
  return { begin: neighbourHeadWords + number * capacity * slotWords, capacity };
}

function createNeighbours(shared: SharedArrayBuffer) {
  const words = new Uint32Array(shared);
  let used = 0;
  let taken = 0;
  return {
    put: (key: IdWords, slot: Slot): void => {
      let newest = words[neighbourNewest] ?? 0;
      let table = neighbourTable(words, newest);
      if (table.capacity < 2) return;
      if (used >= table.capacity * fill) {
        newest = (newest + 1) % neighbourTables;
        table = neighbourTable(words, newest);
        Atomics.add(words, 1 + newest, 1);
        words.fill(0, table.begin, table.begin + table.capacity * slotWords);
        Atomics.add(words, 1 + newest, 1);
        Atomics.store(words, neighbourNewest, newest);
        used = 0;
      }
      writeSlot(words, table, key, slot);
      used += 1;
    },
    wanted: (): readonly number[] => {
      const count = Atomics.load(words, wantedCount);
      const from = Math.max(taken, count - wantedRing);
      taken = count;
      const numbers = new Set<number>();
      for (let at = from; at < count; at += 1) numbers.add((words[8 + (at % wantedRing)] ?? 0) - 1);
      // A thread counts before it writes: what is not there yet comes with the next hook of that pack.
      numbers.delete(-1);
      return [...numbers];
    },
  };
}

function createNeighbourFinder(shared: SharedArrayBuffer): (key: IdWords) => Slot | undefined {
  const words = new Uint32Array(shared);
  return (key) => {
    const newest = Atomics.load(words, neighbourNewest);
    for (let back = 0; back < neighbourTables; back += 1) {
      const number = (newest + neighbourTables - back) % neighbourTables;
      const emptied = Atomics.load(words, 1 + number);
      if (emptied % 2 === 1) continue;
      const slot = readSlot(words, neighbourTable(words, number), key);
      // What was read while the table was emptied may be of two chunks.
      if (slot !== undefined && Atomics.load(words, 1 + number) === emptied) return slot;
    }
    return undefined;
  };
}

function createWanter(shared: SharedArrayBuffer): (packNumber: number) => void {
  const words = new Uint32Array(shared);
  let last = -1;
  return (packNumber) => {
    if (packNumber === last) return;
    last = packNumber;
    const at = Atomics.add(words, wantedCount, 1);
    Atomics.store(words, 8 + (at % wantedRing), packNumber + 1);
  };
}

type IdWords = {
  readonly first: number;
  readonly second: number;
  /** 25 bits. */
  readonly third: number;
  readonly home: number;
};

function idWords(id: Uint8Array): IdWords {
  return {
    first: wordAt(id, 0) || 1,
    second: wordAt(id, 4),
    third: wordAt(id, 8) & 0x1ff_ffff,
    home: wordAt(id, 12),
  };
}

function isHook(id: Uint8Array, hookBits: number): boolean {
  const first = (id[0] ?? 0) * 2 ** 16 + (id[1] ?? 0) * 2 ** 8 + (id[2] ?? 0);
  return first < 2 ** (24 - hookBits);
}

function wordAt(id: Uint8Array, at: number): number {
  return (
    ((id[at] ?? 0) |
      ((id[at + 1] ?? 0) << 8) |
      ((id[at + 2] ?? 0) << 16) |
      ((id[at + 3] ?? 0) << 24)) >>>
    0
  );
}
