import { createDynamoCatalog } from "@holdfast/shared/aws/catalog";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { BusEvent } from "@holdfast/shared/ports/event-bus";
import { createJsonLogger, type Logger } from "@holdfast/shared/ports/logger";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import { type RandomBytes, systemRandom } from "@holdfast/shared/ports/random";
import type { PolicySchedule, Schedules } from "@holdfast/shared/ports/schedules";
import type { RecoveryInput, WorkflowInput, Workflows } from "@holdfast/shared/ports/workflows";
import { type DynamoTable, openDynamoTable } from "./dynamo-table.ts";

/**
 * The control plane's outside in memory: the real catalog on dynalite; workflows, parameters, schedules and events
 * as small models that tests look into and make fail.
 */
export type ControlPlane = AsyncDisposable & {
  readonly table: DynamoTable;
  readonly catalog: Catalog;
  /** Every call is a second later than the one before. */
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly siteQueueUrl: (siteId: string) => string;
  readonly workflows: Workflows & {
    readonly started: Map<string, WorkflowInput>;
    readonly ended: Set<string>;
    /** Recoveries that run, by job; one that ended is in `recovered` instead. */
    readonly recovering: Map<string, RecoveryInput>;
    readonly recovered: Set<string>;
    failing: boolean;
  };
  readonly parameters: Parameters & { readonly secrets: Map<string, string> };
  readonly schedules: Schedules & { readonly set: Map<string, PolicySchedule>; failing: boolean };
  readonly eventBus: { readonly publish: (event: BusEvent) => Promise<void> };
  readonly events: BusEvent[];
  readonly logger: Logger;
  readonly logLines: string[];
};

export async function openControlPlane(): Promise<ControlPlane> {
  const table = await openDynamoTable();
  const clock = createTickingClock();
  const events: BusEvent[] = [];
  const logLines: string[] = [];
  return {
    table,
    catalog: createDynamoCatalog({ ...table, clock, random: systemRandom }),
    clock,
    random: systemRandom,
    siteQueueUrl: (siteId) => `http://queue/holdfast-${siteId}`,
    workflows: createMemoryWorkflows(),
    parameters: createMemoryParameters(),
    schedules: createMemorySchedules(),
    eventBus: { publish: async (event) => void events.push(event) },
    events,
    logger: createJsonLogger((line) => logLines.push(line)),
    logLines,
    [Symbol.asyncDispose]: () => table[Symbol.asyncDispose](),
  };
}

function createTickingClock(): Clock {
  let time = Date.parse("2026-11-20T10:00:00.000Z");
  return {
    now: () => {
      time += 1000;
      return time;
    },
    sleep: async () => undefined,
  };
}

function createMemoryWorkflows(): ControlPlane["workflows"] {
  const started = new Map<string, WorkflowInput>();
  const ended = new Set<string>();
  const recovering = new Map<string, RecoveryInput>();
  const recovered = new Set<string>();
  return {
    started,
    ended,
    recovering,
    recovered,
    failing: false,
    async start({ jobId }, input) {
      if (this.failing) throw new Failure("aws.failed", { message: "no answer" });
      started.set(jobId, input);
    },
    async recover({ jobId }, input) {
      if (this.failing) throw new Failure("aws.failed", { message: "no answer" });
      recovering.set(jobId, input);
    },
    async state({ jobId }) {
      if (!started.has(jobId) && !ended.has(jobId)) return "absent";
      if (!ended.has(jobId)) return "running";
      if (recovered.has(jobId)) return "ended";
      return recovering.has(jobId) ? "running" : "orphaned";
    },
  };
}

function createMemoryParameters(): ControlPlane["parameters"] {
  const secrets = new Map<string, string>();
  return {
    secrets,
    async getSecret(name) {
      const value = secrets.get(name);
      if (value !== undefined) return value;
      throw new Failure("not-found", { message: `there is no parameter ${name}` });
    },
    async putSecret(name, value) {
      secrets.set(name, value);
    },
    async remove(name) {
      secrets.delete(name);
    },
  };
}

function createMemorySchedules(): ControlPlane["schedules"] {
  const set = new Map<string, PolicySchedule>();
  return {
    set,
    failing: false,
    async put(schedule) {
      if (this.failing) throw new Failure("input.invalid", { message: "refused" });
      set.set(schedule.policyId, schedule);
    },
    async remove(policyId) {
      set.delete(policyId);
    },
  };
}
