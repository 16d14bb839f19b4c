export type IndexPack = { readonly packId: Uint8Array; readonly epoch: number };

/** Packs by number, in memory that threads share: 20 bytes each. A slot of the index has 24 bits for the number. */
export type PackTable = {
  readonly shared: SharedArrayBuffer;
  readonly words: Uint32Array;
  /** The pack's number; a new one if it is not known. Undefined when the table is full. */
  readonly number: (pack: IndexPack) => number | undefined;
};

const packWords = 5;
const packsMax = 2 ** 24 - 1;

export function createPackTable(
  shared = new SharedArrayBuffer(packWords * 4, { maxByteLength: packsMax * packWords * 4 }),
): PackTable {
  const words = new Uint32Array(shared);
  // Numbers plus one, in open addressing by words of the id.
  let slots = new Uint32Array(1024);
  let count = 0;

  function slotOf(row: readonly number[]): number {
    // The first half of an id is its session's, and so the same in many.
    let slot = (((row[0] ?? 0) ^ (row[2] ?? 0)) >>> 0) % slots.length;
    for (;;) {
      const number = (slots[slot] ?? 0) - 1;
      if (number < 0 || row.every((word, at) => words[number * packWords + at] === word))
        return slot;
      slot = (slot + 1) % slots.length;
    }
  }

  function rowAt(number: number): readonly number[] {
    return Array.from({ length: 4 }, (_, at) => words[number * packWords + at] ?? 0);
  }

  function grow(): void {
    slots = new Uint32Array(slots.length * 2);
    for (let number = 0; number < count; number += 1) slots[slotOf(rowAt(number))] = number + 1;
  }

  return {
    shared,
    words,
    number: ({ packId, epoch }) => {
      const id = Buffer.from(packId);
      const row = [0, 4, 8, 12].map((at) => id.readUInt32LE(at));
      const slot = slotOf(row);
      const known = slots[slot] ?? 0;
      if (known > 0) return known - 1;
      if (count >= packsMax) return undefined;
      const needed = (count + 1) * packWords * 4;
      if (needed > shared.byteLength) {
        shared.grow(Math.min(Math.max(needed, shared.byteLength * 2), shared.maxByteLength));
      }
      words.set([...row, epoch], count * packWords);
      slots[slot] = count + 1;
      count += 1;
      if (count * 2 > slots.length) grow();
      return count - 1;
    },
  };
}

export function packAt(words: Uint32Array, number: number): IndexPack {
  const packId = Buffer.alloc(16);
  for (let word = 0; word < 4; word += 1) {
    packId.writeUInt32LE(words[number * packWords + word] ?? 0, word * 4);
  }
  return { packId, epoch: words[number * packWords + 4] ?? 0 };
}
