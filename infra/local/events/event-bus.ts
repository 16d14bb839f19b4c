import { randomUUID } from "node:crypto";
import { mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "@holdfast/shared/ports/logger";
import { z } from "zod";
import { AwsError } from "../aws-error.ts";
import { type AppendLog, openAppendLog } from "../durable/append-log.ts";
import { openJsonMapFile } from "../durable/json-file.ts";
import type { Json, JsonObject } from "../json.ts";
import { isJsonObject, parseJson } from "../json.ts";
import { account, region } from "../names.ts";
import { type Operations, operation } from "../operations.ts";

/**
 * EventBridge: buses, rules that match `source` and `detail-type` exactly, targets SQS and Lambda. Events are in an
 * append-only log before PutEvents answers; what a crash kept from its targets is delivered at the next start, so
 * delivery is at least once.
 */
export type EventBridge = {
  readonly operations: Operations;
  putEvents(entries: readonly JsonObject[]): Promise<Json>;
  /** Delivers what a former process left over. */
  resume(): void;
  close(): Promise<void>;
};

export type EventTargets = {
  /** Throws when the target refuses. */
  deliver(targetArn: string, payload: Json): Promise<void>;
  supports(targetArn: string): boolean;
};

const Target = z.strictObject({ Id: z.string(), Arn: z.string(), Input: z.string().optional() });
const Rule = z.strictObject({
  name: z.string(),
  bus: z.string(),
  pattern: z.string(),
  enabled: z.boolean(),
  description: z.string().optional(),
  targets: z.array(Target),
});
type Rule = z.infer<typeof Rule>;

const Pattern = z.strictObject({
  source: z.array(z.string()).min(1).optional(),
  "detail-type": z.array(z.string()).min(1).optional(),
});

type LogRecord =
  | { readonly event: JsonObject; readonly bus: string }
  | { readonly delivered: string };

const logSizeBytesMax = 16 * 1024 * 1024;
/** As Lambda's asynchronous invocation: the first attempt and two more. */
const attemptsMax = 3;

export function openEventBridge(
  folder: string,
  targets: EventTargets,
  { logger, now = Date.now }: { readonly logger: Logger; readonly now?: () => number },
): EventBridge {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const buses = openJsonMapFile(join(folder, "buses.json"), (v) => z.string().parse(v));
  const rules = openJsonMapFile(join(folder, "rules.json"), (v) => Rule.parse(v));
  if (buses.get("default") === undefined) buses.set("default", "default");
  const { log, pending } = openEventLog(join(folder, "events.jsonl"));
  const deliveries = new Set<Promise<void>>();
  let closed = false;

  const arnOf = (bus: string) => `arn:aws:events:${region}:${account}:event-bus/${bus}`;
  const ruleArn = (bus: string, name: string) =>
    `arn:aws:events:${region}:${account}:rule/${bus === "default" ? "" : `${bus}/`}${name}`;
  const busName = (nameOrArn: string | undefined): string => {
    const name = (nameOrArn ?? "default").replace(/^arn:.*:event-bus\//, "");
    if (buses.get(name) !== undefined) return name;
    throw new AwsError("ResourceNotFoundException", `Event bus ${name} does not exist.`);
  };
  const findRule = (bus: string, name: string): Rule => {
    const rule = rules.get(`${bus}/${name}`);
    if (rule !== undefined) return rule;
    throw new AwsError("ResourceNotFoundException", `Rule ${name} does not exist on ${bus}.`);
  };

  function deliver(bus: string, event: JsonObject): void {
    const matching = rules
      .values()
      .filter((rule) => rule.bus === bus && rule.enabled && matches(rule.pattern, event));
    const work = Promise.all(
      matching.flatMap((rule) => rule.targets.map((target) => deliverTo(rule, target, event))),
    ).then(() => {
      if (!closed) log.append({ delivered: String(event["id"]) } satisfies LogRecord);
    });
    deliveries.add(work);
    work.finally(() => deliveries.delete(work)).catch(() => undefined);
  }

  async function deliverTo(rule: Rule, target: z.infer<typeof Target>, event: JsonObject) {
    const payload = target.Input === undefined ? event : parseJson(target.Input);
    for (let attempt = 1; ; attempt += 1) {
      try {
        await targets.deliver(target.Arn, payload);
        return;
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        logger.warn("event not delivered", { rule: rule.name, target: target.Arn, message });
        if (attempt >= attemptsMax || closed) return;
      }
    }
  }

  async function putEvents(entries: readonly JsonObject[]): Promise<Json> {
    const results = entries.map((entry): JsonObject => {
      const { Source, DetailType, Detail, EventBusName } = entry;
      if (typeof Source !== "string" || typeof DetailType !== "string") {
        return { ErrorCode: "InvalidArgument", ErrorMessage: "Source and DetailType are needed" };
      }
      const detail = detailOf(Detail);
      if (detail === undefined) {
        return { ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed." };
      }
      const bus = (typeof EventBusName === "string" ? EventBusName : "default").replace(
        /^arn:.*:event-bus\//,
        "",
      );
      const id = randomUUID();
      const event: JsonObject = {
        version: "0",
        id,
        "detail-type": DetailType,
        source: Source,
        account,
        time: `${new Date(now()).toISOString().slice(0, 19)}Z`,
        region,
        resources: Array.isArray(entry["Resources"]) ? entry["Resources"] : [],
        detail,
      };
      // As on AWS: an event for a bus that does not exist is accepted and goes nowhere.
      log.append({ event, bus } satisfies LogRecord);
      deliver(bus, event);
      return { EventId: id };
    });
    await log.flush();
    const failed = results.filter((result) => result["EventId"] === undefined).length;
    return { Entries: results, FailedEntryCount: failed };
  }

  const bus = { EventBusName: z.string().optional() };
  const operations: Operations = {
    CreateEventBus: operation(z.strictObject({ Name: z.string().max(256) }), ({ Name }) => {
      if (buses.get(Name) !== undefined) {
        throw new AwsError("ResourceAlreadyExistsException", `Event bus ${Name} already exists.`);
      }
      buses.set(Name, Name);
      return { EventBusArn: arnOf(Name) };
    }),
    DescribeEventBus: operation(z.strictObject({ Name: z.string().optional() }), ({ Name }) => {
      const name = busName(Name);
      return { Name: name, Arn: arnOf(name) };
    }),
    PutRule: operation(
      z.strictObject({
        ...bus,
        Name: z.string().regex(/^[.\-_A-Za-z0-9]{1,64}$/),
        EventPattern: z.string(),
        State: z.enum(["ENABLED", "DISABLED"]).default("ENABLED"),
        Description: z.string().optional(),
      }),
      ({ EventBusName, Name, EventPattern, State, Description }) => {
        const name = busName(EventBusName);
        checkPattern(EventPattern);
        rules.set(`${name}/${Name}`, {
          name: Name,
          bus: name,
          pattern: EventPattern,
          enabled: State === "ENABLED",
          targets: rules.get(`${name}/${Name}`)?.targets ?? [],
          ...(Description === undefined ? {} : { description: Description }),
        });
        return { RuleArn: ruleArn(name, Name) };
      },
    ),
    DeleteRule: operation(
      z.strictObject({ ...bus, Name: z.string(), Force: z.boolean().optional() }),
      ({ EventBusName, Name }) => {
        const key = `${busName(EventBusName)}/${Name}`;
        if ((rules.get(key)?.targets.length ?? 0) > 0) {
          throw new AwsError("ValidationException", "Rule can't be deleted since it has targets.");
        }
        rules.delete(key);
        return {};
      },
    ),
    ListRules: operation(
      z.strictObject({ ...bus, NamePrefix: z.string().default("") }),
      ({ EventBusName, NamePrefix }) => {
        const name = busName(EventBusName);
        const found = rules.values().filter((rule) => rule.bus === name);
        const shown = found
          .filter((rule) => rule.name.startsWith(NamePrefix))
          .map((rule) => ({
            Name: rule.name,
            Arn: ruleArn(name, rule.name),
            EventBusName: name,
            EventPattern: rule.pattern,
            State: rule.enabled ? "ENABLED" : "DISABLED",
          }));
        return { Rules: shown };
      },
    ),
    PutTargets: operation(
      z.strictObject({ ...bus, Rule: z.string(), Targets: z.array(Target).min(1) }),
      ({ EventBusName, Rule: ruleName, Targets }) => {
        const rule = findRule(busName(EventBusName), ruleName);
        for (const { Arn } of Targets) {
          if (!targets.supports(Arn)) {
            throw new AwsError("ValidationException", `The target ${Arn} is not supported`);
          }
        }
        const kept = rule.targets.filter(({ Id }) => Targets.every((target) => target.Id !== Id));
        rules.set(`${rule.bus}/${rule.name}`, { ...rule, targets: [...kept, ...Targets] });
        return { FailedEntryCount: 0, FailedEntries: [] };
      },
    ),
    RemoveTargets: operation(
      z.strictObject({ ...bus, Rule: z.string(), Ids: z.array(z.string()).min(1) }),
      ({ EventBusName, Rule: ruleName, Ids }) => {
        const rule = findRule(busName(EventBusName), ruleName);
        const kept = rule.targets.filter(({ Id }) => !Ids.includes(Id));
        rules.set(`${rule.bus}/${rule.name}`, { ...rule, targets: kept });
        return { FailedEntryCount: 0, FailedEntries: [] };
      },
    ),
    ListTargetsByRule: operation(z.strictObject({ ...bus, Rule: z.string() }), (input) => ({
      Targets: findRule(busName(input.EventBusName), input.Rule).targets as unknown as Json,
    })),
    PutEvents: operation(
      z.strictObject({ Entries: z.array(z.record(z.string(), z.json())).min(1).max(10) }),
      ({ Entries }) => putEvents(Entries as JsonObject[]),
    ),
  };

  return {
    operations,
    putEvents,
    resume: () => {
      for (const { bus: name, event } of pending) deliver(name, event);
    },
    close: async () => {
      await Promise.all(deliveries);
      closed = true;
      log.close();
    },
  };
}

function openEventLog(path: string): {
  log: AppendLog;
  pending: readonly { readonly bus: string; readonly event: JsonObject }[];
} {
  const opened = openAppendLog(path);
  const pending = new Map<string, { bus: string; event: JsonObject }>();
  for (const record of opened.records as unknown as LogRecord[]) {
    if ("delivered" in record) pending.delete(record.delivered);
    else pending.set(String(record.event["id"]), record);
  }
  if (statSync(path).size < logSizeBytesMax || pending.size > 0) {
    return { log: opened.log, pending: [...pending.values()] };
  }
  // One older generation is kept to look at.
  opened.log.close();
  renameSync(path, path.replace(/\.jsonl$/, ".1.jsonl"));
  return { log: openAppendLog(path).log, pending: [] };
}

function detailOf(detail: Json | undefined): JsonObject | undefined {
  if (isJsonObject(detail)) return detail;
  if (typeof detail !== "string") return undefined;
  try {
    const parsed = parseJson(detail);
    return isJsonObject(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function checkPattern(text: string): void {
  try {
    const parsed = Pattern.safeParse(parseJson(text));
    if (parsed.success && Object.keys(parsed.data).length > 0) return;
    const why = parsed.error?.issues.map((issue) => issue.message).join("; ") ?? "it is empty";
    throw new Error(why);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AwsError(
      "InvalidEventPatternException",
      `Only exact source and detail-type are supported: ${why}`,
    );
  }
}

function matches(text: string, event: JsonObject): boolean {
  const pattern = Pattern.parse(parseJson(text));
  const holds = (wanted: readonly string[] | undefined, value: Json | undefined) =>
    wanted === undefined || (typeof value === "string" && wanted.includes(value));
  return (
    holds(pattern.source, event["source"]) && holds(pattern["detail-type"], event["detail-type"])
  );
}
