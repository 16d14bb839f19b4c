/** Changes bytes as damage and malice do. Everything follows from the seed. */
export type Chance = { readonly below: (limit: number) => number };

/** mulberry32: small, and the same everywhere. */
export function createChance(seed: number): Chance {
  let state = seed >>> 0;
  return {
    below: (limit) => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
    },
  };
}

const bytesOfInterest = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff];
const wordsOfInterest = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff, 0x1000_0000];
/** JSON breaks in other places than binary records do. */
const textOfInterest = ['"', "{", "[", "}", "1e999", "-1", "null", "\\u0000", "9".repeat(30)];

export function mutate(good: Uint8Array, chance: Chance): Uint8Array {
  let bytes = Buffer.from(good);
  for (let edits = 1 + chance.below(4); edits > 0; edits -= 1) bytes = edit(bytes, chance);
  return Uint8Array.from(bytes);
}

function edit(bytes: Buffer<ArrayBuffer>, chance: Chance): Buffer<ArrayBuffer> {
  // Beginnings have the lengths and counts: every other edit is there.
  const within = chance.below(2) === 0 ? Math.min(bytes.length, 128) : bytes.length;
  const at = chance.below(within + 1);
  const pick = <Item>(items: readonly Item[], otherwise: Item): Item =>
    items[chance.below(items.length)] ?? otherwise;
  switch (chance.below(8)) {
    case 0:
      return Buffer.from(bytes.subarray(0, at));
    case 1:
      return Buffer.concat([bytes, Buffer.alloc(1 + chance.below(64), chance.below(256))]);
    case 2: {
      const length = chance.below(33);
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
    }
    case 3: {
      const from = chance.below(bytes.length + 1);
      const part = bytes.subarray(from, from + chance.below(65));
      return Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at)]);
    }
    case 4: {
      const text = Buffer.from(pick(textOfInterest, ""));
      return Buffer.concat([bytes.subarray(0, at), text, bytes.subarray(at + chance.below(3))]);
    }
    case 5:
      if (at + 4 <= bytes.length) bytes.writeUInt32LE(pick(wordsOfInterest, 0), at);
      return bytes;
    case 6:
      if (at < bytes.length) bytes[at] = pick(bytesOfInterest, 0);
      return bytes;
    default:
      if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << chance.below(8));
      return bytes;
  }
}
