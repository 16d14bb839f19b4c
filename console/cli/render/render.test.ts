import fc from "fast-check";
import { expect, test } from "vitest";
import { createBufferedOutput, createFakeClock } from "../testing.ts";
import { formatAge, formatBytes, formatDuration, formatRatio, printable } from "./format.ts";
import { createPaceMeter, createProgressDisplay, type DiskPace, progressLine } from "./progress.ts";
import { renderTable } from "./table.ts";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.00 KiB"],
  [10 * 1024 ** 2, "10.0 MiB"],
  [1024 ** 3 - 1, "1.00 GiB"],
  [1.5 * 1024 ** 4, "1.50 TiB"],
])("%d bytes are %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

test.each([
  [0.25, "0.3 s"],
  [59.4, "59 s"],
  [187, "3 m 07 s"],
  [7500, "2 h 05 m"],
  [356_400, "4 d 03 h"],
  [undefined, "-"],
])("%s seconds are %s", (seconds, text) => expect(formatDuration(seconds)).toBe(text));

test("ages and ratios say what is not known", () => {
  const now = Date.parse("2026-11-20T12:00:00Z");
  expect(formatAge(undefined, now)).toBe("never");
  expect(formatAge("2026-11-20T11:59:18Z", now)).toBe("42 s ago");
  expect(formatAge("2026-11-20T12:00:09Z", now)).toBe("now");
  expect(formatRatio(0, 0)).toBe("-");
  expect(formatRatio(100, 0)).toBe("all");
  expect(formatRatio(100, 8)).toBe("12.5x");
});

test("in a pipe a row is one line with one tab between cells, whatever the cells hold", () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.string({ unit: "binary" }), { minLength: 3, maxLength: 3 })),
      (rows) => {
        const columns = [{ title: "A" }, { title: "B" }, { title: "C" }];
        const text = renderTable({ columns, rows, empty: "none" }, { forPeople: false });
        const lines = text.split("\n").slice(0, -1);
        expect(lines.length).toBe(rows.length);
        for (const line of lines) expect(line.split("\t").length).toBe(3);
      },
    ),
  );
});

test("people get titles, aligned columns, and a next step instead of an empty table", () => {
  const columns = [{ title: "NAME" }, { title: "SIZE", align: "right" as const }];
  const table = {
    columns,
    rows: [
      ["web1", "9 B"],
      ["a", "10 KiB"],
    ],
    empty: "Nothing yet.",
  };
  expect(renderTable(table, { forPeople: true })).toBe(
    "NAME    SIZE\nweb1     9 B\na     10 KiB\n",
  );
  expect(renderTable({ ...table, rows: [] }, { forPeople: true })).toBe("Nothing yet.\n");
});

test("nothing in a name steers the terminal", () => {
  expect(printable("a\u001b[2Jb\u202e")).toBe("a�[2Jb�");
});

const disk = (bytesDone: number, isFinished = false): DiskPace => ({
  disk: "web1 vda",
  stage: "full",
  bytesDone,
  bytesTotal: 1000,
  isFinished,
  rate: undefined,
  etaSeconds: undefined,
});

test("a pipe gets one line a disk each 30 seconds", () => {
  const output = createBufferedOutput();
  const clock = createFakeClock();
  const display = createProgressDisplay({ output, clock });
  for (let second = 0; second < 95; second += 1) {
    display.show([disk(second)]);
    clock.advance(1000);
  }
  display.end();
  const lines = output.text().trimEnd().split("\n");
  expect(lines.length).toBe(3);
  expect(output.text()).not.toContain("\u001b");
  expect(lines[0]).toMatch(/^web1 vda {2} *3% {2}30 B of 1000 B/);
});

test("a terminal is redrawn in place, and the last picture stays", () => {
  const output = createBufferedOutput(true, 100);
  const clock = createFakeClock();
  const display = createProgressDisplay({ output, clock });
  display.show([disk(100)]);
  clock.advance(50);
  display.show([disk(200)]);
  clock.advance(50);
  display.show([disk(300)]);
  display.show([disk(1000, true)]);
  display.end();
  const pictures = output.text().split("\u001b[1A\u001b[J");
  expect(pictures.map((picture) => /\d+%/.exec(picture)?.[0])).toEqual(["10%", "30%", "100%"]);
});

test("with 0 frames a second no progress is shown, but what is said is", () => {
  for (const isTerminal of [true, false]) {
    const output = createBufferedOutput(isTerminal);
    const display = createProgressDisplay({ output, clock: createFakeClock(), framesPerSecond: 0 });
    display.show([disk(500)]);
    display.say("Warning: careful");
    display.end();
    expect(output.text()).toBe("Warning: careful\n");
  }
});

test("a line fits the terminal and never says 100 % before the end", () => {
  fc.assert(
    fc.property(
      fc.nat(1200),
      fc.boolean(),
      fc.integer({ min: 20, max: 200 }),
      (done, isFinished, columns) => {
        const line = progressLine(disk(done, isFinished), columns);
        expect(line.length).toBeLessThan(columns);
        expect(progressLine(disk(done, isFinished), undefined).includes("100%")).toBe(isFinished);
      },
    ),
  );
});

test("the rate follows the last seconds, and a stall has no end in sight", () => {
  const clock = createFakeClock();
  const meter = createPaceMeter(clock, 10_000);
  expect(meter.measure(disk(0)).rate).toBeUndefined();
  clock.advance(1000);
  expect(meter.measure(disk(100))).toMatchObject({ rate: 100, etaSeconds: 9 });
  clock.advance(30_000);
  meter.measure(disk(100));
  clock.advance(1000);
  expect(meter.measure(disk(100))).toMatchObject({ rate: 0, etaSeconds: undefined });
});
