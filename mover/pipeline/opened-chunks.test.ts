import { expect, test } from "vitest";
import { chunkKey, createOpenedChunks } from "./opened-chunks.ts";
import type { PackRange } from "./restore-plan.ts";

const id = (number: number): Uint8Array => new Uint8Array(32).fill(number);

function range(...lengths: readonly (readonly [number, number])[]): PackRange {
  return {
    packId: new Uint8Array(16),
    epoch: 1,
    offset: 0,
    length: 1,
    chunks: lengths.map(([number, length]) => ({
      id: id(number),
      offset: 0,
      storedLength: 1,
      length,
      diskOffsets: [0],
    })),
  };
}

test("gives chunks back by their ids, in the bytes that they were added with", () => {
  const opened = createOpenedChunks(100);
  opened.add(range([1, 3], [2, 5]), Uint8Array.from([1, 1, 1, 2, 2, 2, 2, 2]));
  expect(opened.find(chunkKey(id(1)))).toEqual(Uint8Array.from([1, 1, 1]));
  expect(opened.find(chunkKey(id(2)))).toEqual(Uint8Array.from([2, 2, 2, 2, 2]));
  expect(opened.find(chunkKey(id(3)))).toBeUndefined();
});

test("never holds more than its bytes; what was used longest ago goes first", () => {
  const opened = createOpenedChunks(30);
  for (const number of [1, 2, 3]) opened.add(range([number, 10]), new Uint8Array(10));
  expect(opened.bytes()).toBe(30);
  opened.find(chunkKey(id(1)));
  opened.add(range([4, 10]), new Uint8Array(10));
  expect(opened.bytes()).toBe(30);
  expect([1, 2, 3, 4].filter((number) => opened.has(chunkKey(id(number))))).toEqual([1, 3, 4]);
  opened.add(range([5, 31]), new Uint8Array(31));
  expect(opened.has(chunkKey(id(5)))).toBe(false);
  expect(opened.bytes()).toBe(30);
});

test("a chunk that came twice is forgotten with the memory that it lies in, not before", () => {
  const opened = createOpenedChunks(20);
  opened.add(range([1, 10]), new Uint8Array(10).fill(1));
  opened.add(range([1, 4], [2, 6]), new Uint8Array(10).fill(1));
  opened.add(range([3, 10]), new Uint8Array(10));
  expect(opened.has(chunkKey(id(1)))).toBe(true);
  opened.add(range([4, 10]), new Uint8Array(10));
  expect(opened.has(chunkKey(id(1)))).toBe(false);
  expect(opened.bytes()).toBe(20);
});
