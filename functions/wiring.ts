/**
 * The only file here that builds adapters. Each is built when it is first asked for; the environment is read then,
 * through one schema.
 */
import { createDynamoCatalog } from "@holdfast/shared/aws/catalog";
import {
  createDocumentClient,
  createEventBridgeClient,
  createSchedulerClient,
  createSfnClient,
  createSsmClient,
} from "@holdfast/shared/aws/clients";
import { createEventBus } from "@holdfast/shared/aws/event-bus";
import { createSsmParameters } from "@holdfast/shared/aws/parameters";
import { createPolicySchedules } from "@holdfast/shared/aws/schedules";
import { createSfnWorkflows } from "@holdfast/shared/aws/workflows";
import { FunctionSettings } from "@holdfast/shared/contracts/settings";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { EventBus } from "@holdfast/shared/ports/event-bus";
import { createJsonLogger, type Logger } from "@holdfast/shared/ports/logger";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import { systemRandom } from "@holdfast/shared/ports/random";
import type { Schedules } from "@holdfast/shared/ports/schedules";
import type { Workflows } from "@holdfast/shared/ports/workflows";
import type { StartServices } from "./jobs/start-jobs.ts";

export const clock = systemClock;
export const random = systemRandom;

export const settings = once((): FunctionSettings => FunctionSettings.parse(process.env));

export const logger = once(
  (): Logger => createJsonLogger((line) => process.stdout.write(`${line}\n`)),
);

export const catalog = once(
  (): Catalog =>
    createDynamoCatalog({
      client: createDocumentClient(),
      tableName: settings().CATALOG_TABLE,
      clock,
      random,
    }),
);

export const parameters = once((): Parameters => createSsmParameters(createSsmClient()));

export const workflows = once((): Workflows => {
  const {
    BACKUP_STATE_MACHINE_ARN: backup,
    RESTORE_STATE_MACHINE_ARN: restore,
    INSPECT_STATE_MACHINE_ARN: inspect,
    RECOVER_STATE_MACHINE_ARN: recover,
  } = settings();
  return createSfnWorkflows({
    client: createSfnClient(),
    stateMachineArns: { backup, restore, inspect, recover },
  });
});

/** Of the state machines whose executions are named by jobs. */
export function jobStateMachineArns(): readonly string[] {
  const found = settings();
  return [
    found.BACKUP_STATE_MACHINE_ARN,
    found.RESTORE_STATE_MACHINE_ARN,
    found.INSPECT_STATE_MACHINE_ARN,
  ].filter((arn) => arn !== undefined);
}

export const schedules = once((): Schedules => {
  const { SCHEDULE_GROUP, SCHEDULE_TARGET_ARN, SCHEDULE_ROLE_ARN } = settings();
  return createPolicySchedules({
    client: createSchedulerClient(),
    groupName: needed("SCHEDULE_GROUP", SCHEDULE_GROUP),
    targetArn: needed("SCHEDULE_TARGET_ARN", SCHEDULE_TARGET_ARN),
    roleArn: needed("SCHEDULE_ROLE_ARN", SCHEDULE_ROLE_ARN),
  });
});

/** Without a bus nobody listens. */
export const eventBus = once((): EventBus => {
  const { EVENT_BUS_NAME } = settings();
  if (EVENT_BUS_NAME === undefined) return { publish: async () => undefined };
  return createEventBus(createEventBridgeClient(), EVENT_BUS_NAME);
});

export const startServices = (): StartServices => ({
  catalog: catalog(),
  workflows: workflows(),
  clock,
  random,
  siteQueueUrl,
});

export function siteQueueUrl(siteId: string): string {
  const { SITE_QUEUE_URL_PREFIX } = settings();
  return `${needed("SITE_QUEUE_URL_PREFIX", SITE_QUEUE_URL_PREFIX)}${siteId}`;
}

function needed(name: string, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new Failure("internal", { message: `this function needs the setting ${name}` });
}

/** Built once a process; again only when the environment names another installation, as when a test starts a second local stack. */
export function once<T>(make: () => T): () => T {
  let made: { readonly value: T; readonly installation: string } | undefined;
  return () => {
    const { CATALOG_TABLE, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB } = process.env;
    const installation = [CATALOG_TABLE, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB].join(" ");
    if (made?.installation !== installation) made = { value: make(), installation };
    return made.value;
  };
}
