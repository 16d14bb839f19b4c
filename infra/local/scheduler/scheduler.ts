import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@holdfast/shared/ports/logger";
import { z } from "zod";
import { AwsError, unknownOperation } from "../aws-error.ts";
import { openJsonMapFile } from "../durable/json-file.ts";
import type { Json, JsonObject } from "../json.ts";
import { parseJson } from "../json.ts";
import { account, region } from "../names.ts";
import { epochSeconds } from "../operations.ts";
import { type Route, sendJson } from "../server.ts";
import { parseSchedule } from "./expression.ts";

/**
 * EventBridge Scheduler. Schedules and their next firing are on the disk: what came due while the process was away
 * fires once at the next start. A firing is repeated with back-off until its target took it or the retry policy ends.
 */
export type Scheduler = {
  readonly route: Route;
  start(): void;
  close(): void;
};

export type ScheduleTargets = {
  /** Throws when the target refuses. */
  deliver(targetArn: string, input: Json): Promise<void>;
  supports(targetArn: string): boolean;
};

const Target = z.strictObject({
  Arn: z.string(),
  RoleArn: z.string(),
  Input: z.string().optional(),
  RetryPolicy: z
    .strictObject({
      MaximumEventAgeInSeconds: z.int().min(60).max(86_400).optional(),
      MaximumRetryAttempts: z.int().min(0).max(185).optional(),
    })
    .optional(),
});

const time = z.number();
const ScheduleInput = z.strictObject({
  GroupName: z.string().default("default"),
  ScheduleExpression: z.string().max(256),
  ScheduleExpressionTimezone: z.string().default("UTC"),
  StartDate: time.optional(),
  EndDate: time.optional(),
  Description: z.string().max(512).optional(),
  State: z.enum(["ENABLED", "DISABLED"]).default("ENABLED"),
  Target,
  FlexibleTimeWindow: z.strictObject({
    Mode: z.enum(["OFF", "FLEXIBLE"]),
    MaximumWindowInMinutes: z.int().optional(),
  }),
  ActionAfterCompletion: z.enum(["NONE", "DELETE"]).default("NONE"),
  ClientToken: z.string().optional(),
});
type ScheduleInput = z.infer<typeof ScheduleInput>;

const StoredSchedule = z.strictObject({
  name: z.string(),
  createdAt: z.number(),
  modifiedAt: z.number(),
  /** Milliseconds since 1970; undefined when it will not fire again. */
  nextAt: z.number().optional(),
  input: ScheduleInput,
});
type StoredSchedule = z.infer<typeof StoredSchedule>;
const Group = z.strictObject({ name: z.string(), createdAt: z.number() });

/** How often clocks are looked at; also bounds how late a firing is after the machine slept. */
const lookMs = 1000;
const retryMsMin = 1000;
const retryMsMax = 300_000;

export function openScheduler(
  folder: string,
  targets: ScheduleTargets,
  { logger, now = Date.now }: { readonly logger: Logger; readonly now?: () => number },
): Scheduler {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const schedules = openJsonMapFile(join(folder, "schedules.json"), (v) => StoredSchedule.parse(v));
  const groups = openJsonMapFile(join(folder, "groups.json"), (v) => Group.parse(v));
  if (groups.get("default") === undefined)
    groups.set("default", { name: "default", createdAt: now() });
  const firing = new Set<string>();
  const stopped = new AbortController();
  let timer: NodeJS.Timeout | undefined;

  const arnOf = (group: string, name: string) =>
    `arn:aws:scheduler:${region}:${account}:schedule/${group}/${name}`;
  const groupArn = (name: string) =>
    `arn:aws:scheduler:${region}:${account}:schedule-group/${name}`;
  const find = (group: string, name: string): StoredSchedule => {
    const found = schedules.get(`${group}/${name}`);
    if (found !== undefined) return found;
    throw new AwsError("ResourceNotFoundException", `Schedule ${name} does not exist.`, 404);
  };
  const checkGroup = (name: string) => {
    const group = groups.get(name);
    if (group !== undefined) return group;
    throw new AwsError("ResourceNotFoundException", `Schedule group ${name} does not exist.`, 404);
  };

  function nextOf(input: ScheduleInput, createdAt: number, afterMs: number): number | undefined {
    const startMs = input.StartDate === undefined ? createdAt : input.StartDate * 1000;
    const schedule = parseSchedule(input.ScheduleExpression, {
      timeZone: input.ScheduleExpressionTimezone,
      startMs,
    });
    const next = schedule.next(Math.max(afterMs, input.StartDate === undefined ? 0 : startMs - 1));
    const endMs = input.EndDate === undefined ? Infinity : input.EndDate * 1000;
    return next === undefined || next > endMs ? undefined : next;
  }

  function save(name: string, body: Json, existing: StoredSchedule | undefined): JsonObject {
    const parsed = ScheduleInput.safeParse(body);
    if (!parsed.success) {
      const issues = parsed.error.issues.map((i) => `${i.path.join(".")}: ${i.message}`);
      throw new AwsError("ValidationException", issues.join("; "));
    }
    const input = parsed.data;
    checkGroup(input.GroupName);
    if (!targets.supports(input.Target.Arn)) {
      throw new AwsError("ValidationException", `The target ${input.Target.Arn} is not supported`);
    }
    const createdAt = existing?.createdAt ?? now();
    const nextAt = nextOf(input, createdAt, now());
    schedules.set(`${input.GroupName}/${name}`, {
      name,
      createdAt,
      modifiedAt: now(),
      input,
      ...(nextAt === undefined ? {} : { nextAt }),
    });
    return { ScheduleArn: arnOf(input.GroupName, name) };
  }

  function look(): void {
    for (const schedule of schedules.values()) {
      const key = `${schedule.input.GroupName}/${schedule.name}`;
      const isDue = schedule.nextAt !== undefined && schedule.nextAt <= now();
      if (!isDue || schedule.input.State === "DISABLED" || firing.has(key)) continue;
      firing.add(key);
      fire(key, schedule)
        .catch((error: unknown) => logger.error("schedule broke", { key, error: String(error) }))
        .finally(() => firing.delete(key));
    }
  }

  /** The next firing is written only when this one is over: a crash in between fires again. */
  async function fire(key: string, schedule: StoredSchedule): Promise<void> {
    const dueAt = schedule.nextAt ?? now();
    await deliver(key, schedule, dueAt);
    if (stopped.signal.aborted) return;
    const current = schedules.get(key);
    // Changed or removed meanwhile: the new one has its own next firing.
    if (current === undefined || current.modifiedAt !== schedule.modifiedAt) return;
    const nextAt = nextOf(schedule.input, schedule.createdAt, now());
    if (nextAt === undefined && schedule.input.ActionAfterCompletion === "DELETE") {
      schedules.delete(key);
      return;
    }
    const { nextAt: _fired, ...rest } = current;
    schedules.set(key, { ...rest, ...(nextAt === undefined ? {} : { nextAt }) });
  }

  async function deliver(key: string, schedule: StoredSchedule, dueAt: number): Promise<void> {
    const { Arn, Input, RetryPolicy } = schedule.input.Target;
    const attemptsMax = (RetryPolicy?.MaximumRetryAttempts ?? 185) + 1;
    const ageMsMax = (RetryPolicy?.MaximumEventAgeInSeconds ?? 86_400) * 1000;
    const startedAt = now();
    const executionId = randomUUID();
    for (let attempt = 1; !stopped.signal.aborted; attempt += 1) {
      const text = fillContext(Input ?? "{}", {
        "schedule-arn": arnOf(schedule.input.GroupName, schedule.name),
        "scheduled-time": `${new Date(dueAt).toISOString().slice(0, 19)}Z`,
        "execution-id": executionId,
        "attempt-number": String(attempt),
      });
      try {
        await targets.deliver(Arn, parseJson(text));
        logger.info("schedule fired", { key, dueAt, attempt });
        return;
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        logger.warn("schedule's target refused", { key, attempt, message });
      }
      if (attempt >= attemptsMax || now() - startedAt > ageMsMax) return;
      await pause(Math.min(retryMsMin * 2 ** (attempt - 1), retryMsMax), stopped.signal);
    }
  }

  function show(schedule: StoredSchedule): JsonObject {
    const { ClientToken: _token, ...input } = schedule.input;
    return {
      ...(JSON.parse(JSON.stringify(input)) as JsonObject),
      Name: schedule.name,
      Arn: arnOf(schedule.input.GroupName, schedule.name),
      CreationDate: epochSeconds(schedule.createdAt),
      LastModificationDate: epochSeconds(schedule.modifiedAt),
    };
  }

  function list(query: URLSearchParams): JsonObject {
    const limit = Number(query.get("MaxResults") ?? 100);
    const found = schedules
      .values()
      .filter(({ input }) => (query.get("ScheduleGroup") ?? input.GroupName) === input.GroupName)
      .filter(({ name }) => name.startsWith(query.get("NamePrefix") ?? ""))
      .filter(({ input }) => (query.get("State") ?? input.State) === input.State)
      .map((schedule) => ({ key: `${schedule.input.GroupName}/${schedule.name}`, schedule }))
      .sort((left, right) => (left.key < right.key ? -1 : 1))
      .filter(({ key }) => key > (query.get("NextToken") ?? ""));
    const page = found.slice(0, limit);
    const shown = page.map(({ schedule }) => {
      const { Name, Arn, GroupName, State, CreationDate, LastModificationDate } = show(schedule);
      const dates = { CreationDate, LastModificationDate } as JsonObject;
      const target = { Arn: schedule.input.Target.Arn };
      return { Name, Arn, GroupName, State, ...dates, Target: target } as JsonObject;
    });
    const last = page.at(-1);
    return {
      Schedules: shown,
      ...(found.length > page.length && last !== undefined ? { NextToken: last.key } : {}),
    };
  }

  function scheduleRequest(method: string, name: string, query: URLSearchParams, body: Json): Json {
    const group = query.get("groupName") ?? "default";
    switch (method) {
      case "POST": {
        if (!/^[\w.-]{1,64}$/.test(name)) throw new AwsError("ValidationException", "Invalid name");
        const wanted = ScheduleInput.safeParse(body).data?.GroupName ?? "default";
        if (schedules.get(`${wanted}/${name}`) !== undefined) {
          throw new AwsError("ConflictException", `Schedule ${name} already exists.`, 409);
        }
        return save(name, body, undefined);
      }
      case "PUT": {
        const wanted = ScheduleInput.safeParse(body).data?.GroupName ?? "default";
        return save(name, body, find(wanted, name));
      }
      case "GET":
        return show(find(group, name));
      case "DELETE":
        find(group, name);
        schedules.delete(`${group}/${name}`);
        return {};
      default:
        throw unknownOperation(`${method} /schedules/{Name}`);
    }
  }

  function groupRequest(method: string, name: string): Json {
    switch (method) {
      case "POST":
        if (groups.get(name) !== undefined) {
          throw new AwsError("ConflictException", `Schedule group ${name} already exists.`, 409);
        }
        groups.set(name, { name, createdAt: now() });
        return { ScheduleGroupArn: groupArn(name) };
      case "GET": {
        const { createdAt } = checkGroup(name);
        const dates = { CreationDate: epochSeconds(createdAt) };
        return { Name: name, Arn: groupArn(name), State: "ACTIVE", ...dates };
      }
      case "DELETE":
        checkGroup(name);
        for (const schedule of schedules.values()) {
          if (schedule.input.GroupName === name) schedules.delete(`${name}/${schedule.name}`);
        }
        groups.delete(name);
        return {};
      default:
        throw unknownOperation(`${method} /schedule-groups/{Name}`);
    }
  }

  return {
    route: async ({ message, url, body }, response) => {
      const { method = "GET" } = message;
      const [, kind, encoded] = url.pathname.split("/");
      const name = decodeURIComponent(encoded ?? "");
      const input = body.length === 0 ? {} : parseJson(body.toString("utf8"));
      if (kind === "schedules" && name === "" && method === "GET") {
        return sendJson(response, 200, list(url.searchParams));
      }
      if (name === "") throw unknownOperation(`${method} ${url.pathname}`);
      const output =
        kind === "schedules"
          ? scheduleRequest(method, name, url.searchParams, input)
          : groupRequest(method, name);
      sendJson(response, 200, output);
    },
    start: () => {
      look();
      timer = setInterval(look, lookMs);
    },
    close: () => {
      clearInterval(timer);
      stopped.abort();
    },
  };
}

function fillContext(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(
    /<aws\.scheduler\.([a-z-]+)>/g,
    (whole, name: string) => values[name] ?? whole,
  );
}

function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, delayMs);
    signal.addEventListener("abort", end, { once: true });
  });
}
