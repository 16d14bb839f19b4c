import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Extent } from "@holdfast/shared/domain/extent";
import { toFailureRecord } from "@holdfast/shared/domain/failure";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createMemoryReader } from "../pipeline/memory-disk.ts";
import { readChangedRanges, withChanges } from "./changed-ranges.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-changes-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(content: unknown, sizeBytes = 1000) {
  const path = join(folder, "changes.json");
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return await readChangedRanges(path, sizeBytes);
}

const accepted: readonly (readonly [string, unknown, unknown])[] = [
  ["nothing", [], []],
  [
    "ranges in any order",
    [
      { offset: 500, length: 5 },
      { offset: 0, length: 10 },
    ],
    [
      [0, 10],
      [500, 5],
    ],
  ],
  [
    "overlaps and neighbours",
    [
      { offset: 5, length: 10 },
      { offset: 0, length: 7 },
      { offset: 15, length: 1 },
    ],
    [[0, 16]],
  ],
  [
    "one within another",
    [
      { offset: 0, length: 100 },
      { offset: 5, length: 5 },
    ],
    [[0, 100]],
  ],
  ["up to the end", [{ offset: 999, length: 1 }], [[999, 1]]],
  [
    "a dirty bitmap by nbdinfo",
    [
      { offset: 0, length: 64, type: 0, description: "clean" },
      { offset: 64, length: 64, type: 1, description: "dirty" },
    ],
    [[64, 64]],
  ],
  [
    "an overlay by qemu-img map",
    [
      {
        start: 0,
        length: 64,
        depth: 1,
        present: true,
        zero: false,
        data: true,
        compressed: false,
        offset: 0,
      },
      {
        start: 64,
        length: 64,
        depth: 0,
        present: true,
        zero: false,
        data: true,
        compressed: false,
        offset: 327_680,
      },
      {
        start: 128,
        length: 64,
        depth: 0,
        present: true,
        zero: true,
        data: false,
        compressed: false,
      },
      {
        start: 192,
        length: 808,
        depth: 0,
        present: false,
        zero: true,
        data: false,
        compressed: false,
      },
    ],
    [[64, 128]],
  ],
];
test.each(accepted)("%s", async (_name, content, expected) => {
  const ranges = await read(content);
  expect(ranges.map(({ offset, length }) => [offset, length])).toEqual(expected);
});

const refused: readonly (readonly [string, unknown])[] = [
  ["no JSON", "{"],
  ["no list", { offset: 0, length: 1 }],
  ["a range beyond the end", [{ offset: 999, length: 2 }]],
  ["a clean range beyond the end: it is another disk's", [{ offset: 0, length: 2000, type: 0 }]],
  ["a negative offset", [{ offset: -1, length: 1 }]],
  ["half a byte", [{ offset: 0.5, length: 1 }]],
  ["a number above 2^53", '[{"offset": 9007199254740993, "length": 1}]'],
  ["a length as text", [{ offset: 0, length: "1" }]],
  ["an unknown field", [{ offset: 0, length: 1, unit: "KiB" }]],
  ["an unknown type", [{ offset: 0, length: 1, type: 2 }]],
  ["no length", [{ offset: 0 }]],
];
test.each(refused)("refused: %s", async (_name, content) => {
  const failure = toFailureRecord(await read(content).catch((error: unknown) => error));
  expect(failure.code).toBe("input.invalid");
  // One line for people, not the parser's pages.
  expect([failure.message, ...failure.causes].join("\n").length).toBeLessThan(400);
});

test("a file that is not there", async () => {
  await expect(readChangedRanges(join(folder, "none"), 1)).rejects.toMatchObject({
    code: "input.invalid",
  });
});

test("changed is what the list names, by the source's own kinds; all else is unchanged", async () => {
  const size = 200;
  const range = fc.record({ offset: fc.nat(size - 1), length: fc.nat(60) });
  const cuts = fc.uniqueArray(fc.integer({ min: 1, max: size - 1 }), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { maxLength: 8 }), cuts, async (given, points) => {
      const ranges = given.filter(({ offset, length }) => offset + length <= size);
      const edges = [0, ...points.sort((left, right) => left - right), size];
      const extents = edges.slice(0, -1).map(
        (offset, number): Extent => ({
          offset,
          length: (edges[number + 1] ?? size) - offset,
          kind: number % 2 === 0 ? "data" : "zero",
        }),
      );
      const changes = await read(ranges, size);
      const reader = withChanges(createMemoryReader(new Uint8Array(size), { extents }), changes);
      let next = 0;
      for await (const { offset, length, kind } of reader.extents()) {
        expect(offset).toBe(next);
        next += length;
        for (let at = offset; at < next; at += 1) {
          const isChanged = ranges.some(
            (each) => at >= each.offset && at < each.offset + each.length,
          );
          const own = extents.find((each) => at >= each.offset && at < each.offset + each.length);
          expect(kind).toBe(isChanged ? own?.kind : "unchanged");
        }
      }
      expect(next).toBe(size);
    }),
    { numRuns: 60 },
  );
});
