import { randomBytes } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { expect, test } from "vitest";
import { isFailure } from "../../domain/failure.ts";
import { compress, inflate, inflateInto } from "./compression.ts";
import { createCompressContext, createInflateContext } from "./zstd-context.ts";

const text = (length: number, seed = 0): Buffer =>
  Buffer.alloc(length, `line ${seed} of the quick brown fox `);
const mixed = (length: number, seed: number): Buffer =>
  Buffer.concat([randomBytes(length >>> 1), text(length - (length >>> 1), seed)]);

test("any number of pieces of any size, one after the other, inflate to themselves, here and by Node's public functions", () => {
  for (const length of [1, 15, 255, 256, 257, 4096, 65_791, 65_792, 131_072, 524_288, 1_500_000]) {
    for (let seed = 0; seed < 5; seed += 1) {
      const plain = mixed(length, seed);
      const packed = compress(plain);
      if (packed === undefined) continue;
      expect(packed.length).toBeLessThan(length);
      expect(zstdDecompressSync(packed).equals(plain)).toBe(true);
      expect(plain.equals(inflate(packed, length, "piece"))).toBe(true);
    }
  }
});

test("what does not shrink is not kept", () => {
  expect(compress(randomBytes(100_000))).toBeUndefined();
  expect(compress(text(100_000))).toBeDefined();
});

test("memory that threads share is compressed from and inflated into", () => {
  const plain = new Uint8Array(new SharedArrayBuffer(70_000));
  plain.set(mixed(70_000, 1));
  const packed = Uint8Array.from(compress(plain) ?? []);
  const out = new Uint8Array(new SharedArrayBuffer(80_000)).subarray(5000, 75_000);
  inflateInto(packed, out, "piece");
  expect(Buffer.compare(out, plain)).toBe(0);
});

test("after anything that is no whole frame of that length, the next piece inflates as ever", () => {
  const plain = mixed(100_000, 7);
  const good = Uint8Array.from(compress(plain) ?? []);
  const flipped = Uint8Array.from(good, (byte, at) =>
    at === good.length - 9 ? byte ^ 0x55 : byte,
  );
  const head = Uint8Array.from(good, (byte, at) => (at === 3 ? 0 : byte));
  const cases: readonly (readonly [Uint8Array, number])[] = [
    [good.subarray(0, good.length - 10), 100_000],
    [good.subarray(0, good.length - 1), 100_000],
    [good.subarray(0, 3), 100_000],
    [good, 99_999],
    [good, 100_001],
    [good, 0],
    [Buffer.concat([good, good]), 100_000],
    [head, 100_000],
    [new Uint8Array(0), 10],
    [flipped, 100_000],
  ];
  for (const [packed, length] of cases) {
    const outcome = attempt(() => inflate(packed, length, "piece"));
    // A flipped literal is still a frame, and two frames may pass for one of them: what must never happen is taking one for the other later.
    if (outcome instanceof Uint8Array) expect(outcome.length).toBe(length);
    else expect(isFailure(outcome, "object.corrupt")).toBe(true);
    expect(plain.equals(inflate(good, plain.length, "piece"))).toBe(true);
  }
});

test("frames of other writers inflate: without their length, with a checksum", () => {
  const plain = text(200_000);
  const withChecksum = zstdCompressSync(plain, { params: { 201: 1 } });
  expect(plain.equals(inflate(withChecksum, plain.length, "piece"))).toBe(true);
  const withoutLength = zstdCompressSync(plain, { params: { 200: 0 } });
  expect(plain.equals(inflate(withoutLength, plain.length, "piece"))).toBe(true);
});

test("this Node offers what contexts are kept by, and kept contexts give what new ones do", () => {
  const [compressing, inflating] = [createCompressContext(1), createInflateContext()];
  const out = new Uint8Array(200_000);
  for (let seed = 0; seed < 3; seed += 1) {
    const plain = mixed(150_000, seed);
    const length = compressing.run(plain, out);
    const packed = Uint8Array.from(out.subarray(0, length));
    expect(Buffer.compare(packed, zstdCompressSync(plain, { params: { 100: 1 } }))).toBe(0);
    const back = new Uint8Array(plain.length);
    expect(inflating.run(packed, back)).toBe(plain.length);
    expect(plain.equals(back)).toBe(true);
  }
});

function attempt(work: () => Uint8Array): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}
