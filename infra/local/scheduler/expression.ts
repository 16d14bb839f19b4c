import { Cron } from "croner";
import { AwsError } from "../aws-error.ts";

/** A parsed schedule: when it fires next. All times are milliseconds since 1970. */
export type Schedule = {
  /** The first firing after `afterMs`; undefined when there is none. */
  next(afterMs: number): number | undefined;
};

/**
 * `at(…)`, `rate(…)`, `cron(…)` as EventBridge Scheduler documents them. `rate` counts from `startMs`. Throws
 * ValidationException. cron has six fields, minutes to years; Sunday is 1.
 */
export function parseSchedule(
  expression: string,
  options: { readonly timeZone: string; readonly startMs: number },
): Schedule {
  checkTimeZone(options.timeZone);
  const [, kind = "", body = ""] = /^(at|rate|cron)\((.+)\)$/.exec(expression.trim()) ?? [];
  switch (kind) {
    case "at":
      return parseAt(body, options.timeZone);
    case "rate":
      return parseRate(body, options.startMs);
    case "cron":
      return parseCron(body, options.timeZone);
    default:
      throw invalid(expression, "it is none of at(), rate() and cron()");
  }
}

function parseAt(body: string, timeZone: string): Schedule {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/.test(body)) {
    throw invalid(`at(${body})`, "the form is at(yyyy-mm-ddThh:mm:ss)");
  }
  // croner reads a local time of the zone, daylight saving included.
  const time = new Cron(body, { timezone: timeZone }).nextRun(new Date(0))?.getTime();
  return { next: (afterMs) => (time !== undefined && time > afterMs ? time : undefined) };
}

const units: Readonly<Record<string, number>> = {
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
};

function parseRate(body: string, startMs: number): Schedule {
  const [, count = "", unit = ""] = /^([1-9]\d*) (minute|hour|day)s?$/.exec(body) ?? [];
  const unitMs = units[unit];
  if (unitMs === undefined) throw invalid(`rate(${body})`, "the form is rate(5 minutes)");
  const everyMs = Number(count) * unitMs;
  return {
    next: (afterMs) => {
      const passed = Math.max(-1, Math.floor((afterMs - startMs) / everyMs));
      return startMs + (passed + 1) * everyMs;
    },
  };
}

function parseCron(body: string, timeZone: string): Schedule {
  const fields = body.trim().split(/\s+/);
  const [minutes, hours, days, months, weekdays = "", years] = fields;
  if (fields.length !== 6) throw invalid(`cron(${body})`, "it needs six fields");
  if ((days === "?") === (weekdays === "?")) {
    throw invalid(`cron(${body})`, "exactly one of day of month and day of week has to be ?");
  }
  const any = (field: string) => (field === "?" ? "*" : field);
  // EventBridge writes the last Friday 6L or FRIL, croner 6#L.
  const weekday = weekdays.replace(/^([1-7]|[A-Z]{3})L$/i, "$1#L");
  const pattern = [
    0,
    steps(minutes, 59),
    steps(hours, 23),
    any(steps(days, 31)),
    steps(months, 12),
    any(weekday),
    years,
  ].join(" ");
  try {
    const cron = new Cron(pattern, {
      timezone: timeZone,
      mode: "7-part",
      alternativeWeekdays: true,
      paused: true,
    });
    return { next: (afterMs) => cron.nextRun(new Date(afterMs))?.getTime() };
  } catch (error) {
    throw invalid(`cron(${body})`, error instanceof Error ? error.message : String(error));
  }
}

/** `5/15` of EventBridge, from 5 every 15, is `5-59/15` for croner. */
function steps(field: string | undefined, last: number): string {
  const [, from, step] = /^(\d+)\/(\d+)$/.exec(field ?? "") ?? [];
  return from === undefined || step === undefined ? (field ?? "") : `${from}-${last}/${step}`;
}

function checkTimeZone(timeZone: string): void {
  try {
    new Intl.DateTimeFormat("en", { timeZone });
  } catch {
    throw new AwsError("ValidationException", `The time zone ${timeZone} is not known`);
  }
}

const invalid = (expression: string, why: string) =>
  new AwsError("ValidationException", `Invalid Schedule Expression ${expression}: ${why}.`);
