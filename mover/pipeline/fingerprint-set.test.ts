import fc from "fast-check";
import { expect, test } from "vitest";
import { createFingerprintSet, type Fingerprint, fingerprint } from "./fingerprint-set.ts";

const word = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const marks: fc.Arbitrary<Fingerprint> = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(9), word);

test("it holds what was added and nothing else, also after it grew", () => {
  fc.assert(
    fc.property(fc.array(marks, { maxLength: 200 }), fc.nat(9), (some, salt) => {
      const set = createFingerprintSet(100_000);
      const model = new Set<string>();
      const many = Array.from({ length: 5000 }, (_, at): Fingerprint => [at + 1, salt, at * 7]);
      for (const mark of [...some, ...many]) {
        const isNew = !model.has(String(mark));
        if (set.has(mark) === isNew || set.add(mark) !== isNew) expect.fail(`${mark}`);
        model.add(String(mark));
      }
      expect([...some, ...many].every(set.has)).toBe(true);
    }),
    { numRuns: 5 },
  );
});

test("a full set forgets, and never claims to have met what it has not", () => {
  const set = createFingerprintSet(1);
  expect([set.add([1, 1, 1]), set.add([1, 1, 1])]).toEqual([true, false]);
  expect([set.add([2, 1, 1]), set.add([2, 1, 1]), set.has([2, 1, 1])]).toEqual([true, true, false]);
});

test("every part of a reference counts", () => {
  const base = {
    id: new Uint8Array(32).fill(1),
    packId: new Uint8Array(16).fill(2),
    epoch: 1,
    offset: 64,
    storedLength: 100,
    length: 200,
  };
  const others = [
    { ...base, id: new Uint8Array(32).fill(3) },
    { ...base, packId: new Uint8Array(16).fill(3) },
    { ...base, epoch: 2 },
    { ...base, offset: 65 },
    { ...base, storedLength: 101 },
    { ...base, length: 201 },
  ];
  expect(new Set([base, ...others].map((o) => String(fingerprint(o)))).size).toBe(7);
});
