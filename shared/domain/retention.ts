import type { Retention } from "./policy.ts";

/**
 * Which recovery points a policy keeps, and why. Pure: the same points give the same plan in any order and at any time.
 * A rule such as `daily: 7` keeps the newest point of each of the last 7 days that have one, days as in `timeZone`.
 * The newest point and every pinned one are always kept.
 */
export type RetainablePoint = {
  readonly pointId: string;
  /** ISO 8601, UTC. */
  readonly takenAt: string;
};

export type RetentionPlan<Point extends RetainablePoint> = {
  /** Newest first. */
  readonly keep: readonly { readonly point: Point; readonly reasons: readonly KeepReason[] }[];
  readonly remove: readonly Point[];
};

const rules = ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const;
export type KeepReason = (typeof rules)[number] | "newest" | "pinned";

export function planRetention<Point extends RetainablePoint>(options: {
  readonly points: readonly Point[];
  readonly retention: Retention;
  /** Points that must stay whatever the rules say: a VM's head, what a running job builds on or restores. */
  readonly pinned: ReadonlySet<string>;
  readonly timeZone?: string;
}): RetentionPlan<Point> {
  const { retention, pinned } = options;
  const points = [...options.points].sort(newestFirst);
  const periodsOf = createCalendar(options.timeZone ?? "UTC");
  const seen = new Map(rules.map((rule) => [rule, new Set<string>()]));

  const keep: { point: Point; reasons: KeepReason[] }[] = [];
  const remove: Point[] = [];
  points.forEach((point, index) => {
    const reasons: KeepReason[] = [];
    if (index === 0) reasons.push("newest");
    if (pinned.has(point.pointId)) reasons.push("pinned");
    const periods = periodsOf(point);
    for (const rule of rules) {
      const period = rule === "last" ? point.pointId : periods[rule];
      const kept = seen.get(rule);
      if (kept === undefined || kept.has(period) || kept.size >= retention[rule]) continue;
      kept.add(period);
      reasons.push(rule);
    }
    if (reasons.length > 0) keep.push({ point, reasons });
    else remove.push(point);
  });
  return { keep, remove };
}

function newestFirst(a: RetainablePoint, b: RetainablePoint): number {
  const difference = timeOf(b) - timeOf(a);
  if (difference !== 0) return difference;
  return a.pointId < b.pointId ? 1 : a.pointId > b.pointId ? -1 : 0;
}

/** A time that cannot be read sorts as the oldest and is in a period of its own, so that it displaces no good point. */
function timeOf({ takenAt }: RetainablePoint): number {
  const time = Date.parse(takenAt);
  return Number.isNaN(time) ? Number.MIN_SAFE_INTEGER : time;
}

type Periods = Readonly<Record<Exclude<(typeof rules)[number], "last">, string>>;

function createCalendar(timeZone: string): (point: RetainablePoint) => Periods {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone,
    calendar: "iso8601",
    numberingSystem: "latn",
    hourCycle: "h23",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    // Tells the two hours of the same number apart when summer time ends.
    timeZoneName: "longOffset",
  });
  return (point) => {
    const time = timeOf(point);
    if (time === Number.MIN_SAFE_INTEGER) {
      const own = `unreadable ${point.pointId}`;
      return { hourly: own, daily: own, weekly: own, monthly: own, yearly: own };
    }
    const parts = new Map(format.formatToParts(time).map(({ type, value }) => [type, value]));
    const [year, month, day] = [parts.get("year"), parts.get("month"), parts.get("day")];
    const daily = `${year}-${month}-${day}`;
    return {
      hourly: `${daily}T${parts.get("hour")}${parts.get("timeZoneName")}`,
      daily,
      weekly: mondayOf(Date.UTC(Number(year), Number(month) - 1, Number(day))),
      monthly: `${year}-${month}`,
      yearly: `${year}`,
    };
  };
}

const dayMs = 86_400_000;

function mondayOf(dateMs: number): string {
  const sinceMonday = (new Date(dateMs).getUTCDay() + 6) % 7;
  return new Date(dateMs - sinceMonday * dayMs).toISOString().slice(0, 10);
}
