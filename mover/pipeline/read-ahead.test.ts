import { expect, test } from "vitest";
import { createReadAhead } from "./read-ahead.ts";

const MiB = 1024 ** 2;
const settings = { windowBytesMin: MiB, windowBytesMax: 8 * MiB };

test("a stream is read ahead, never twice the same and never beyond the disk", () => {
  const size = 64 * MiB;
  const ahead = createReadAhead(size, settings);
  const step = 256 * 1024;
  let end = 0;
  for (let offset = 0; offset < size; offset += step) {
    const next = ahead.observe({ offset, length: step });
    if (offset === 0) expect(next).toBeUndefined();
    if (next === undefined) continue;
    expect(next.offset).toBeGreaterThanOrEqual(Math.max(end, offset + step));
    end = next.offset + next.length;
    expect(end).toBeLessThanOrEqual(size);
    expect(end - (offset + step)).toBeLessThanOrEqual(settings.windowBytesMax);
  }
  expect(end).toBe(size);
});

test("reads here and there are no stream", () => {
  const ahead = createReadAhead(1024 * MiB, settings);
  for (const offset of [500, 20, 900, 100, 300, 700]) {
    expect(ahead.observe({ offset: offset * MiB, length: 4096 })).toBeUndefined();
  }
  expect(ahead.observe({ offset: 700 * MiB, length: 4096 })).toBeUndefined();
});

test("several streams at once, each with its reads a little out of order", () => {
  const ahead = createReadAhead(1024 * MiB, settings);
  const covered = new Set<number>();
  for (let step = 0; step < 32; step += 2) {
    for (const begin of [0, 400, 800]) {
      for (const number of [step + 1, step]) {
        const read = { offset: (begin + number) * MiB, length: MiB };
        const next = ahead.observe(read);
        if (next !== undefined) covered.add(begin);
      }
    }
  }
  expect([...covered].sort()).toEqual([0, 400, 800]);
});
