import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SendMessageCommand } from "@aws-sdk/client-sqs";
import {
  createEventBridgeClient,
  createSchedulerClient,
  createSfnClient,
  createSqsClient,
  createSsmClient,
} from "@holdfast/shared/aws/clients";
import { createEventBus } from "@holdfast/shared/aws/event-bus";
import { createSsmParameters } from "@holdfast/shared/aws/parameters";
import { createPolicySchedules } from "@holdfast/shared/aws/schedules";
import { createSiteQueue } from "@holdfast/shared/aws/site-queue";
import { createTaskTokens } from "@holdfast/shared/aws/task-tokens";
import { createSfnWorkflows } from "@holdfast/shared/aws/workflows";
import { FunctionSettings } from "@holdfast/shared/contracts/settings";
import { TaskMessage } from "@holdfast/shared/contracts/tasks";
import { isFailure } from "@holdfast/shared/domain/failure";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalStack, startLocalStack } from "../../infra/local/local-stack.ts";

/** The adapters against the local stack's services, through the SDK and HTTP; without a mover, whose part the test plays. */
let stack: LocalStack;
let folder: string;
let settings: FunctionSettings;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-adapters-"));
  stack = await startLocalStack({ stateFolder: folder, mover: false });
  settings = FunctionSettings.parse(process.env);
});
afterAll(async () => {
  await stack?.close();
  await rm(folder, { recursive: true, force: true });
});

async function failsWith(code: string, promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(isFailure(error) ? error.code : error).toBe(code);
}

const queue = () =>
  createSiteQueue({
    client: createSqsClient(),
    queueUrl: `${settings.SITE_QUEUE_URL_PREFIX}local`,
    visibilitySeconds: 60,
  });
const workflows = () =>
  createSfnWorkflows({
    client: createSfnClient(),
    stateMachineArns: {
      backup: settings.BACKUP_STATE_MACHINE_ARN,
      restore: settings.RESTORE_STATE_MACHINE_ARN,
      inspect: settings.INSPECT_STATE_MACHINE_ARN,
      recover: settings.RECOVER_STATE_MACHINE_ARN,
    },
  });

test("secrets come back as they were put, are replaced and removed", async () => {
  const parameters = createSsmParameters(createSsmClient());
  const name = `${settings.PARAMETER_PREFIX}/providers/x/1`;
  const key = `-----BEGIN OPENSSH PRIVATE KEY-----\n${"A".repeat(3000)}\n-----END\n`;
  await parameters.putSecret(name, key);
  expect(await parameters.getSecret(name)).toBe(key);
  await parameters.putSecret(name, "other");
  expect(await parameters.getSecret(name)).toBe("other");
  await parameters.remove(name);
  await parameters.remove(name);
  await failsWith("not-found", parameters.getSecret(name));
});

test("a message is received once, hidden, given back, and removed", async () => {
  const client = createSqsClient();
  await client.send(
    new SendMessageCommand({
      QueueUrl: `${settings.SITE_QUEUE_URL_PREFIX}local`,
      MessageBody: "hello",
    }),
  );
  const { signal } = new AbortController();
  const first = await queue().receive(signal);
  expect(first?.body).toBe("hello");
  await queue().extend(first?.receipt ?? "", 0);
  const second = await queue().receive(signal);
  expect(second?.messageId).toBe(first?.messageId);
  await queue().remove(second?.receipt ?? "");
  await queue().remove(second?.receipt ?? "");
  await queue().extend(second?.receipt ?? "", 10);
  await queue().extend("no receipt at all", 10);
});

test("waiting for a message ends with the signal", async () => {
  const stop = new AbortController();
  const waiting = queue().receive(stop.signal);
  stop.abort();
  expect(await waiting).toBeUndefined();
  expect(await queue().receive(stop.signal)).toBeUndefined();
});

test("a workflow starts once by its job's id; its task is answered by token, once", async () => {
  const tokens = createTaskTokens(createSfnClient());
  const job = { kind: "inspect", jobId: "adapter-inspect" } as const;
  const input = { jobId: job.jobId, siteQueueUrl: `${settings.SITE_QUEUE_URL_PREFIX}local` };
  expect(await workflows().state(job)).toBe("absent");
  await workflows().start(job, input);
  await workflows().start(job, input);
  expect(await workflows().state(job)).toBe("running");
  const received = await queue().receive(new AbortController().signal);
  const message = TaskMessage.parse(JSON.parse(received?.body ?? ""));
  expect(message).toMatchObject({ jobId: job.jobId, task: { kind: "inspect" } });
  await queue().remove(received?.receipt ?? "");
  expect(await tokens.heartbeat(message.taskToken)).toBe(true);
  await tokens.fail(message.taskToken, {
    error: "HoldfastFailed",
    record: { code: "host.login-refused", message: "no", causes: ["x".repeat(5000)] },
  });
  expect(await tokens.heartbeat(message.taskToken)).toBe(false);
  await tokens.succeed(message.taskToken);
  await tokens.fail(message.taskToken, {
    error: "HoldfastFailed",
    record: { code: "internal", message: "late", causes: [] },
  });
  expect(await tokens.heartbeat("no token")).toBe(false);
  // finish-job fails: there is no such job in the catalog. The workflow has ended all the same, and nobody recovers it.
  await expect.poll(() => workflows().state(job), { timeout: 60_000 }).toBe("orphaned");
  await workflows().start(job, input);
  expect(await workflows().state(job)).toBe("orphaned");
  const error = { Error: "Test", Cause: "none" };
  await workflows().recover(job, { ...input, error });
  await workflows().recover(job, { ...input, error });
  expect(await workflows().state(job)).toBe("running");
});

test("schedules are set, replaced and removed; a bad expression is refused", async () => {
  const schedules = createPolicySchedules({
    client: createSchedulerClient(),
    groupName: settings.SCHEDULE_GROUP ?? "",
    targetArn: settings.SCHEDULE_TARGET_ARN ?? "",
    roleArn: settings.SCHEDULE_ROLE_ARN ?? "",
  });
  const schedule = { policyId: "adapter", expression: "rate(1 day)", timeZone: "Europe/Berlin" };
  await schedules.put(schedule);
  await schedules.put({ ...schedule, expression: "cron(0 2 * * ? *)" });
  await failsWith(
    "input.invalid",
    schedules.put({ ...schedule, expression: "cron(99 2 * * ? *)" }),
  );
  await failsWith("input.invalid", schedules.put({ ...schedule, timeZone: "Mars/Olympus" }));
  await schedules.remove("adapter");
  await schedules.remove("adapter");
});

test("an event is accepted", async () => {
  const bus = createEventBus(createEventBridgeClient(), settings.EVENT_BUS_NAME ?? "");
  await bus.publish({ type: "holdfast.job.finished", detail: { jobId: "x" } });
});

test("a control plane that is away is a failure to be retried", async () => {
  const before = process.env["AWS_ENDPOINT_URL_SSM"];
  process.env["AWS_ENDPOINT_URL_SSM"] = "http://127.0.0.1:1";
  const parameters = createSsmParameters(createSsmClient());
  const error = await parameters.getSecret("/x").catch((reason: unknown) => reason);
  if (before !== undefined) process.env["AWS_ENDPOINT_URL_SSM"] = before;
  expect(isFailure(error, "aws.failed") && error.kind.retryable).toBe(true);
});
