import { strict as assert } from "node:assert";

/**
 * What was met already, in 12 bytes a slot: 96 bits that name one record as one leaf or record refers to it. Among 10^9
 * records two share them with a probability of 10^-11.
 */
export type FingerprintSet = {
  readonly has: (mark: Fingerprint) => boolean;
  /** False when it was there. A full set takes nothing more and answers true: the caller then works twice, never too little. */
  readonly add: (mark: Fingerprint) => boolean;
  readonly isFull: () => boolean;
};

export type Fingerprint = readonly [number, number, number];

/** A reference to stored bytes. `id` and `packId` are random by nature, so mixing needs no hash. */
export function fingerprint(o: {
  readonly id: Uint8Array;
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly storedLength: number;
  readonly length: number;
}): Fingerprint {
  assert(o.id.length >= 12 && o.packId.length >= 12);
  const first = wordAt(o.id, 0) ^ wordAt(o.packId, 0) ^ Math.imul(o.offset, 0x9e3779b1);
  const second = wordAt(o.id, 4) ^ wordAt(o.packId, 4) ^ Math.imul(o.storedLength, 0x85ebca6b);
  const third =
    wordAt(o.id, 8) ^
    wordAt(o.packId, 8) ^
    Math.imul(o.length, 0xc2b2ae35) ^
    Math.imul(o.epoch, 0x27d4eb2f);
  // 0 means a free slot.
  return [first >>> 0 || 1, second >>> 0, third >>> 0];
}

const slotWords = 3;
const slotsFirst = 2 ** 12;

/** `countMax`: 12 to 32 bytes each, half as much again for a moment when it grows. */
export function createFingerprintSet(countMax: number): FingerprintSet {
  let slots = slotsFirst;
  let words = new Uint32Array(slots * slotWords);
  let count = 0;

  /** The slot that holds it, or the free one where it belongs. */
  function find([first, second, third]: Fingerprint): number {
    for (let slot = second & (slots - 1); ; slot = (slot + 1) & (slots - 1)) {
      const at = slot * slotWords;
      if (words[at] === 0) return at;
      if (words[at] === first && words[at + 1] === second && words[at + 2] === third) return at;
    }
  }

  function grow(): void {
    const old = words;
    slots *= 2;
    words = new Uint32Array(slots * slotWords);
    for (let at = 0; at < old.length; at += slotWords) {
      if (old[at] !== 0) words.set(old.subarray(at, at + slotWords), find(markAt(old, at)));
    }
  }

  return {
    isFull: () => count >= countMax,
    has: (mark) => words[find(mark)] !== 0,
    add: (mark) => {
      if (words[find(mark)] !== 0) return false;
      if (count >= countMax) return true;
      if (count >= slots * 0.75) grow();
      words.set(mark, find(mark));
      count += 1;
      return true;
    },
  };
}

function markAt(words: Uint32Array, at: number): Fingerprint {
  return [words[at] ?? 0, words[at + 1] ?? 0, words[at + 2] ?? 0];
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) |
    ((bytes[at + 1] ?? 0) << 8) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 24)
  );
}
