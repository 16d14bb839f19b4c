import type { RandomBytes } from "@holdfast/shared/ports/random";

/** Chance from a seed: equal seeds and labels give equal numbers. Not for secrets. */
export type Seeded = {
  /** 32 bits. */
  readonly next: () => number;
  /** 0 to `limit` - 1. */
  readonly below: (limit: number) => number;
  readonly between: (least: number, most: number) => number;
  readonly chance: (share: number) => boolean;
  readonly pick: <T>(items: readonly T[]) => T | undefined;
  readonly bytes: RandomBytes;
  /** Another stream, so that one more draw here changes nothing there. */
  readonly fork: (label: string) => Seeded;
};

export function createSeeded(seed: number, label = ""): Seeded {
  // sfc32, seeded by FNV-1a over the label.
  let mixed = 0x811c9dc5;
  for (const character of `${seed}/${label}`) {
    mixed = Math.imul(mixed ^ character.charCodeAt(0), 0x01000193) >>> 0;
  }
  let a = mixed;
  let b = seed >>> 0;
  let c = Math.floor(seed / 2 ** 32) ^ 0x9e3779b9;
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round += 1) next();
  const below = (limit: number): number => Math.floor((next() / 2 ** 32) * limit);
  return {
    next,
    below,
    between: (least, most) => least + below(most - least + 1),
    chance: (share) => next() < share * 2 ** 32,
    pick: (items) => items[below(items.length)],
    bytes: (lengthBytes) => {
      const bytes = new Uint8Array(lengthBytes);
      for (let at = 0; at < lengthBytes; at += 4) {
        const word = next();
        for (let part = 0; part < 4 && at + part < lengthBytes; part += 1) {
          bytes[at + part] = word >>> (8 * part);
        }
      }
      return bytes;
    },
    fork: (more) => createSeeded(seed, `${label}/${more}`),
  };
}
