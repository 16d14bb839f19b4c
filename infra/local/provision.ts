import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { FunctionSettings, MoverSettings } from "@holdfast/shared/contracts/settings";
import { Failure } from "@holdfast/shared/domain/failure";
import { AwsError } from "./aws-error.ts";
import { readFileIfAny, replaceFile } from "./durable/json-file.ts";
import type { Json, JsonObject } from "./json.ts";
import { isJsonObject, parseJson } from "./json.ts";
import { account, functionArn, queueArn, region, stateMachineArn } from "./names.ts";
import type { Operations } from "./operations.ts";

/** Makes what a fresh installation needs and is missing; run at each start. The names are the local ones. */
const siteId = "local";
const tableName = "holdfast-local";
const queueName = `holdfast-site-${siteId}`;
const deadLetterName = `${queueName}-dead`;
const busName = "holdfast-local";
const recoverRule = "holdfast-recover";
const scheduleGroup = "holdfast-local";
const parameterPrefix = "/holdfast/local";
const tokenParameter = `${parameterPrefix}/api-token-sha256`;
const machineName = (kind: string) => `holdfast-${kind}`;

type LocalSettings = { readonly [Name in keyof FunctionSettings]?: string } & {
  readonly [Name in Extract<keyof MoverSettings, "SITE_ID" | "SITE_QUEUE_URL">]: string;
};

/**
 * Variables for functions and mover. Endpoints are set service by service, so that S3, and only S3, stays what the
 * operator's own variables say; credentials are invented only where there are none.
 */
export function environmentOf(endpoint: string): Record<string, string> {
  const prefix = `${endpoint}/${account}/holdfast-site-`;
  const settings: LocalSettings = {
    CATALOG_TABLE: tableName,
    BACKUP_STATE_MACHINE_ARN: stateMachineArn(machineName("backup")),
    RESTORE_STATE_MACHINE_ARN: stateMachineArn(machineName("restore")),
    INSPECT_STATE_MACHINE_ARN: stateMachineArn(machineName("inspect")),
    RECOVER_STATE_MACHINE_ARN: stateMachineArn(machineName("recover")),
    SITE_QUEUE_URL_PREFIX: prefix,
    EVENT_BUS_NAME: busName,
    PARAMETER_PREFIX: parameterPrefix,
    SCHEDULE_GROUP: scheduleGroup,
    SCHEDULE_TARGET_ARN: functionArn("Dispatch"),
    SCHEDULE_ROLE_ARN: `arn:aws:iam::${account}:role/local`,
    API_TOKEN_PARAMETER: tokenParameter,
    SITE_ID: siteId,
    SITE_QUEUE_URL: `${prefix}${siteId}`,
  };
  const services = ["DYNAMODB", "SQS", "SFN", "SSM", "SCHEDULER", "EVENTBRIDGE", "LAMBDA"];
  return {
    ...settings,
    ...Object.fromEntries(services.map((name) => [`AWS_ENDPOINT_URL_${name}`, endpoint])),
    AWS_REGION: process.env["AWS_REGION"] ?? process.env["AWS_DEFAULT_REGION"] ?? region,
    ...(hasCredentials() ? {} : { AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local" }),
  };
}

function hasCredentials(): boolean {
  const variables = [
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SHARED_CREDENTIALS_FILE",
  ];
  return (
    variables.some((name) => process.env[name] !== undefined) ||
    existsSync(join(homedir(), ".aws", "credentials"))
  );
}

export async function provision(options: {
  readonly endpoint: string;
  readonly state: string;
  readonly operations: Operations;
  readonly parameters: Operations;
  /** Endpoint of the scheduler's REST service. */
  readonly scheduler: string;
  readonly stateMachinesFolder: string | null;
  readonly functionNames: readonly string[];
}): Promise<void> {
  const { endpoint, state, operations, parameters, stateMachinesFolder, functionNames } = options;
  const context = { endpoint, signal: new AbortController().signal };
  const call = (name: string, input: Json) => run(operations, name, input, context);

  await createTable(endpoint);
  await call("CreateQueue", { QueueName: deadLetterName });
  const redrive = { deadLetterTargetArn: queueArn(deadLetterName), maxReceiveCount: 1000 };
  await call("CreateQueue", { QueueName: queueName });
  await call("SetQueueAttributes", {
    QueueUrl: queueName,
    Attributes: { VisibilityTimeout: "90", RedrivePolicy: JSON.stringify(redrive) },
  });
  await ignoring("ResourceAlreadyExistsException", call("CreateEventBus", { Name: busName }));
  await createScheduleGroup(options.scheduler);
  const token = openSecret(join(state, "token"));
  await run(
    parameters,
    "PutParameter",
    { Name: tokenParameter, Value: sha256(token), Type: "String", Overwrite: true },
    context,
  );
  await watchExecutions(call, functionNames);
  if (stateMachinesFolder === null || !existsSync(stateMachinesFolder)) return;
  for (const file of readdirSync(stateMachinesFolder)) {
    const [kind, ending] = file.split(/\.(.*)/s);
    if (kind === undefined || ending !== "asl.json") continue;
    const text = readFileSync(join(stateMachinesFolder, file), "utf8");
    const definition = substitute(text, file, functionNames);
    const name = machineName(kind);
    try {
      await call("CreateStateMachine", { name, definition });
    } catch (error) {
      if (!(error instanceof AwsError) || error.name !== "StateMachineAlreadyExists") throw error;
      await call("UpdateStateMachine", { stateMachineArn: stateMachineArn(name), definition });
    }
  }
}

/** Ends of executions go to the function that looks whether their jobs have ended; the CDK app has the same rule. */
async function watchExecutions(
  call: (name: string, input: Json) => Promise<Json>,
  functionNames: readonly string[],
): Promise<void> {
  if (!functionNames.includes("RecoverJob")) return;
  const pattern = {
    source: ["aws.states"],
    "detail-type": ["Step Functions Execution Status Change"],
  };
  await call("PutRule", { Name: recoverRule, EventPattern: JSON.stringify(pattern) });
  const target = { Id: "recover-job", Arn: functionArn("RecoverJob") };
  await call("PutTargets", { Rule: recoverRule, Targets: [target] });
}

async function run(
  operations: Operations,
  name: string,
  input: Json,
  context: Parameters<Operations[string]>[1],
): Promise<Json> {
  const operation = operations[name];
  if (operation === undefined) throw new Failure("internal", { message: `no operation ${name}` });
  return operation(input, context);
}

async function ignoring(name: string, work: Promise<Json>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof AwsError) || error.name !== name) throw error;
  }
}

/** `${Name}` becomes the function's ARN, as CDK's definitionSubstitutions do it. */
export function substitute(text: string, file: string, functionNames: readonly string[]): string {
  return text.replace(/\$\{([A-Za-z]+)\}/g, (_, name: string) => {
    if (functionNames.includes(name)) return functionArn(name);
    throw new Failure("input.invalid", { message: `${file}: nothing is known as \${${name}}` });
  });
}

/** Random text for this user only, made once and kept. */
export function openSecret(path: string): string {
  const existing = readFileIfAny(path)?.trim();
  if (existing !== undefined && existing !== "") return existing;
  const token = randomBytes(32).toString("base64url");
  replaceFile(path, `${token}\n`, 0o600);
  return token;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

async function createTable(endpoint: string): Promise<void> {
  const attributes = ["PK", "SK", "GSI1PK", "GSI1SK"];
  const keys = (partition: string, sort: string) => [
    { AttributeName: partition, KeyType: "HASH" },
    { AttributeName: sort, KeyType: "RANGE" },
  ];
  const created = await callDynamoDb(endpoint, "CreateTable", {
    TableName: tableName,
    BillingMode: "PAY_PER_REQUEST",
    AttributeDefinitions: attributes.map((name) => ({ AttributeName: name, AttributeType: "S" })),
    KeySchema: keys("PK", "SK"),
    GlobalSecondaryIndexes: [
      {
        IndexName: "GSI1",
        KeySchema: keys("GSI1PK", "GSI1SK"),
        Projection: { ProjectionType: "ALL" },
      },
    ],
  });
  if (created.status === 400 && String(created.body["__type"]).endsWith("ResourceInUseException")) {
    return;
  }
  if (created.status !== 200) {
    const message = `CreateTable: ${JSON.stringify(created.body)}`;
    throw new Failure("aws.failed", { message });
  }
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const { body } = await callDynamoDb(endpoint, "DescribeTable", { TableName: tableName });
    const table = body["Table"];
    if (isJsonObject(table) && table["TableStatus"] === "ACTIVE") return;
    await sleep(25);
  }
  throw new Failure("aws.failed", { message: `The table ${tableName} does not become active` });
}

async function callDynamoDb(
  endpoint: string,
  operation: string,
  input: JsonObject,
): Promise<{ status: number; body: JsonObject }> {
  const response = await fetch(endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": `DynamoDB_20120810.${operation}`,
      // dynalite wants a signature to be there; nobody checks it.
      authorization:
        "AWS4-HMAC-SHA256 Credential=local/20200101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00",
      "x-amz-date": "20200101T000000Z",
    },
    body: JSON.stringify(input),
  });
  const body = parseJson(await response.text());
  return { status: response.status, body: isJsonObject(body) ? body : {} };
}

async function createScheduleGroup(endpoint: string): Promise<void> {
  const response = await fetch(`${endpoint}/schedule-groups/${scheduleGroup}`, { method: "POST" });
  if (response.ok || response.status === 409) return;
  throw new Failure("aws.failed", { message: `CreateScheduleGroup: ${await response.text()}` });
}
