import { expect, test } from "vitest";
import { createObjectTable, flags } from "./object-table.ts";

const seed = Uint8Array.from({ length: 8 }, (_, at) => at * 31 + 1);

/** Like real names: many share their first 8 bytes, which are their session's. */
function idOf(session: number, number: number): Uint8Array {
  const id = new Uint8Array(16);
  const view = new DataView(id.buffer);
  view.setUint32(0, session);
  view.setUint32(8, Math.imul(number, 2_654_435_761));
  view.setUint32(12, number);
  return id;
}

test("finds what was added and nothing else, over all its growth", () => {
  const table = createObjectTable(seed);
  for (let number = 0; number < 20_000; number += 1) {
    expect(table.add(idOf(number % 3, number))).toBe(number);
  }
  for (let number = 0; number < 20_000; number += 1) {
    expect(table.find(idOf(number % 3, number))).toBe(number);
    expect(table.add(idOf(number % 3, number))).toBe(number);
    expect(table.find(idOf((number % 3) + 1, number))).toBe(-1);
  }
  expect(table.count()).toBe(20_000);
  expect(table.id(777)).toEqual(idOf(0, 777));
});

test("flags and sizes stay with their object when the table grows", () => {
  const table = createObjectTable(seed);
  for (let number = 0; number < 5000; number += 1) {
    const row = table.add(idOf(1, number));
    table.setSizeBytes(row, number * 1_000_000_000);
    if (number % 2 === 0) table.set(row, flags.listed);
    if (number % 3 === 0) table.set(row, flags.needed);
    if (number % 6 === 0) table.clear(row, flags.listed);
  }
  for (let number = 0; number < 5000; number += 1) {
    expect(table.sizeBytes(number)).toBe(number * 1_000_000_000);
    expect(table.has(number, flags.listed)).toBe(number % 2 === 0 && number % 6 !== 0);
    expect(table.has(number, flags.needed)).toBe(number % 3 === 0);
    expect(table.has(number, flags.doomed)).toBe(false);
  }
});

test("what is needed of a pack is the most that one record needs, not the sum over records", () => {
  const table = createObjectTable(seed);
  const row = table.add(idOf(1, 1));
  table.need(row, 1, 100);
  table.need(row, 1, 50);
  table.need(row, 2, 120);
  expect(table.neededBytes(row)).toBe(150);
  table.need(row, 3, 151);
  expect(table.neededBytes(row)).toBe(151);
});
