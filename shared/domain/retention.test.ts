import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Retention } from "./policy.ts";
import { planRetention, type RetainablePoint } from "./retention.ts";

const none: Retention = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
const point = (takenAt: string): RetainablePoint => ({ pointId: `p ${takenAt}`, takenAt });
const kept = (
  retention: Partial<Retention>,
  times: readonly string[],
  options: { readonly timeZone?: string; readonly pinned?: readonly string[] } = {},
) =>
  planRetention({
    points: times.map(point),
    retention: { ...none, ...retention },
    pinned: new Set(options.pinned?.map((time) => `p ${time}`)),
    ...(options.timeZone === undefined ? {} : { timeZone: options.timeZone }),
  }).keep.map((entry) => entry.point.takenAt);

describe("rules", () => {
  const rows: readonly {
    readonly name: string;
    readonly retention: Partial<Retention>;
    readonly times: readonly string[];
    readonly kept: readonly string[];
    readonly timeZone?: string;
  }[] = [
    {
      name: "last counts points",
      retention: { last: 2 },
      times: ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"],
      kept: ["2026-01-01T03:00:00Z", "2026-01-01T02:00:00Z"],
    },
    {
      name: "daily keeps the newest of each day that has one",
      retention: { daily: 2 },
      times: ["2026-01-01T01:00:00Z", "2026-01-05T02:00:00Z", "2026-01-05T03:00:00Z"],
      kept: ["2026-01-05T03:00:00Z", "2026-01-01T01:00:00Z"],
    },
    {
      name: "weeks begin on Monday, also over the turn of the year",
      retention: { weekly: 2 },
      times: ["2026-12-27T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-03T00:00:00Z"],
      kept: ["2027-01-03T00:00:00Z", "2026-12-27T00:00:00Z"],
    },
    {
      name: "days are the policy's own",
      retention: { daily: 3 },
      times: ["2026-06-01T21:30:00Z", "2026-06-01T22:30:00Z", "2026-06-02T10:00:00Z"],
      kept: ["2026-06-02T10:00:00Z", "2026-06-01T21:30:00Z"],
      timeZone: "Europe/Berlin",
    },
    {
      name: "the hour that comes twice in autumn is two hours",
      retention: { hourly: 2 },
      times: ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"],
      kept: ["2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z"],
      timeZone: "Europe/Berlin",
    },
    {
      name: "monthly and yearly add to each other",
      retention: { monthly: 2, yearly: 2 },
      times: ["2024-05-01T00:00:00Z", "2025-03-01T00:00:00Z", "2026-01-01T00:00:00Z"],
      kept: ["2026-01-01T00:00:00Z", "2025-03-01T00:00:00Z"],
    },
    {
      name: "all rules at 0 still keep the newest",
      retention: {},
      times: ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"],
      kept: ["2026-01-02T00:00:00Z"],
    },
  ];
  for (const row of rows) {
    test(row.name, () => {
      expect(
        kept(row.retention, row.times, row.timeZone ? { timeZone: row.timeZone } : {}),
      ).toEqual(row.kept);
    });
  }

  test("nothing is planned for no points", () => {
    expect(planRetention({ points: [], retention: none, pinned: new Set() })).toEqual({
      keep: [],
      remove: [],
    });
  });
});

describe("laws", () => {
  const points = fc
    .uniqueArray(
      fc.date({ noInvalidDate: true, min: new Date("2020-01-01"), max: new Date("2030-01-01") }),
      {
        maxLength: 60,
        selector: (date) => date.getTime(),
      },
    )
    .map((dates) => dates.map((date) => point(date.toISOString())));
  const retention = fc.record({
    last: fc.nat(5),
    hourly: fc.nat(5),
    daily: fc.nat(5),
    weekly: fc.nat(5),
    monthly: fc.nat(5),
    yearly: fc.nat(5),
  });
  const pins = fc.array(fc.nat(59), { maxLength: 5 });
  const zone = fc.constantFrom("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns");
  const pinnedOf = (all: readonly RetainablePoint[], indexes: readonly number[]) =>
    new Set(indexes.map((index) => all[index]?.pointId ?? "none"));

  test("every point is kept or removed, never both, and order makes no difference", () => {
    fc.assert(
      fc.property(points, retention, pins, zone, (all, rules, indexes, timeZone) => {
        const pinned = pinnedOf(all, indexes);
        const plan = planRetention({ points: all, retention: rules, pinned, timeZone });
        const ids = [...plan.keep.map((entry) => entry.point), ...plan.remove].map(
          ({ pointId }) => pointId,
        );
        expect(ids.toSorted()).toEqual(all.map(({ pointId }) => pointId).toSorted());
        expect(
          planRetention({ points: all.toReversed(), retention: rules, pinned, timeZone }),
        ).toEqual(plan);
      }),
    );
  });

  test("the newest and the pinned are never removed", () => {
    fc.assert(
      fc.property(points, retention, pins, zone, (all, rules, indexes, timeZone) => {
        const pinned = pinnedOf(all, indexes);
        const { remove } = planRetention({ points: all, retention: rules, pinned, timeZone });
        const newest = all
          .map(({ takenAt }) => takenAt)
          .toSorted()
          .at(-1);
        for (const { pointId, takenAt } of remove) {
          expect(pinned.has(pointId)).toBe(false);
          expect(takenAt).not.toBe(newest);
        }
      }),
    );
  });

  test("applying a plan twice equals applying it once, and no rule keeps more than it says", () => {
    fc.assert(
      fc.property(points, retention, zone, (all, rules, timeZone) => {
        const plan = planRetention({ points: all, retention: rules, pinned: new Set(), timeZone });
        const left = plan.keep.map((entry) => entry.point);
        const again = planRetention({
          points: left,
          retention: rules,
          pinned: new Set(),
          timeZone,
        });
        expect(again).toEqual({ keep: plan.keep, remove: [] });
        for (const rule of ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const) {
          const count = plan.keep.filter(({ reasons }) => reasons.includes(rule)).length;
          expect(count).toBeLessThanOrEqual(rules[rule]);
        }
      }),
    );
  });

  test("a more generous rule never removes more", () => {
    fc.assert(
      fc.property(points, retention, fc.nat(5), (all, rules, more) => {
        const options = { points: all, pinned: new Set<string>() };
        const few = planRetention({ ...options, retention: rules });
        const many = planRetention({
          ...options,
          retention: { ...rules, daily: rules.daily + more, last: rules.last + more },
        });
        const left = new Set(many.keep.map((entry) => entry.point.pointId));
        for (const entry of few.keep) expect(left.has(entry.point.pointId)).toBe(true);
      }),
    );
  });

  test("points of unreadable time displace no good point", () => {
    const good = [point("2026-01-01T00:00:00Z"), point("2026-01-02T00:00:00Z")];
    const plan = planRetention({
      points: [...good, { pointId: "bad", takenAt: "yesterday" }],
      retention: { ...none, last: 2 },
      pinned: new Set(),
    });
    expect(plan.remove.map(({ pointId }) => pointId)).toEqual(["bad"]);
  });
});

test("the default retention keeps 7", () => {
  expect(Retention.parse({}).last).toBe(7);
});
