import { expect, test } from "vitest";
import { parseSchedule } from "./expression.ts";

const next = (
  expression: string,
  after: string,
  timeZone = "UTC",
  start = "2026-01-01T00:00:00Z",
) => {
  const schedule = parseSchedule(expression, { timeZone, startMs: Date.parse(start) });
  const time = schedule.next(Date.parse(after));
  return time === undefined ? undefined : new Date(time).toISOString().replace(".000Z", "Z");
};

test.each([
  ["cron(0 22 * * ? *)", "2026-03-01T22:00:00Z", "UTC", "2026-03-02T22:00:00Z"],
  ["cron(0/15 * * * ? *)", "2026-03-01T10:16:00Z", "UTC", "2026-03-01T10:30:00Z"],
  // Sunday is 1, so 2-6 are the working days; 2026-03-06 is a Friday.
  ["cron(0 18 ? * 2-6 *)", "2026-03-06T18:00:00Z", "UTC", "2026-03-09T18:00:00Z"],
  ["cron(0 18 ? * MON-FRI *)", "2026-03-06T18:00:00Z", "UTC", "2026-03-09T18:00:00Z"],
  ["cron(0 3 ? * 1 *)", "2026-03-02T00:00:00Z", "UTC", "2026-03-08T03:00:00Z"],
  ["cron(0 3 ? * 6L *)", "2026-03-02T00:00:00Z", "UTC", "2026-03-27T03:00:00Z"],
  ["cron(0 3 ? * 3#2 *)", "2026-03-02T00:00:00Z", "UTC", "2026-03-10T03:00:00Z"],
  ["cron(0 3 L * ? *)", "2026-02-02T00:00:00Z", "UTC", "2026-02-28T03:00:00Z"],
  ["cron(0 3 1 1 ? 2028)", "2026-02-02T00:00:00Z", "UTC", "2028-01-01T03:00:00Z"],
  ["cron(0 3 1 1 ? 2020)", "2026-02-02T00:00:00Z", "UTC", undefined],
  // Berlin changes to summer time on 2026-03-29.
  ["cron(0 22 * * ? *)", "2026-03-28T22:00:00Z", "Europe/Berlin", "2026-03-29T20:00:00Z"],
  ["rate(5 minutes)", "2026-01-01T00:00:00Z", "UTC", "2026-01-01T00:05:00Z"],
  ["rate(1 hour)", "2026-01-01T10:30:00Z", "UTC", "2026-01-01T11:00:00Z"],
  ["rate(2 days)", "2025-12-01T00:00:00Z", "UTC", "2026-01-01T00:00:00Z"],
  ["at(2026-07-01T12:00:00)", "2026-01-01T00:00:00Z", "Europe/Berlin", "2026-07-01T10:00:00Z"],
  ["at(2026-07-01T12:00:00)", "2026-07-01T12:00:00Z", "UTC", undefined],
])("%s after %s in %s fires at %s", (expression, after, timeZone, expected) => {
  expect(next(expression, after, timeZone)).toBe(expected);
});

test.each([
  ["cron(0 22 * * *)"],
  ["cron(0 22 * * * *)"],
  ["cron(99 22 * * ? *)"],
  ["rate(0 minutes)"],
  ["rate(5 weeks)"],
  ["at(2026-07-01)"],
  ["0 22 * * *"],
])("%s is refused", (expression) => {
  expect(() => parseSchedule(expression, { timeZone: "UTC", startMs: 0 })).toThrow(/Schedule/);
});

test("an unknown time zone is refused", () => {
  expect(() => parseSchedule("rate(1 day)", { timeZone: "Mars/Base", startMs: 0 })).toThrow("Mars");
});
