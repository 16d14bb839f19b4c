import fc from "fast-check";

/** For tests: random disks that are made of runs of data. */
export type Piece = { readonly at: number; readonly length: number; readonly seed: number };

export const pieces: fc.Arbitrary<readonly Piece[]> = fc.array(
  fc.record({
    at: fc.nat(700_000),
    length: fc.oneof(fc.nat(10_000), fc.nat(200_000)),
    seed: fc.nat(5),
  }),
  { maxLength: 6 },
);

/** The same seed gives the same bytes; half of them compress. */
export function seededBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let at = 0; at < length; at += 1) {
    if ((at >>> 11) % 2 === 0) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      bytes[at] = state & 0xff;
    } else {
      bytes[at] = 65 + (seed % 20);
    }
  }
  return bytes;
}

export function writePieces(disk: Uint8Array, content: readonly Piece[]): Uint8Array {
  for (const { at, length, seed } of content) {
    const from = Math.min(at, disk.length);
    disk.set(seededBytes(Math.min(length, disk.length - from), seed), from);
  }
  return disk;
}
