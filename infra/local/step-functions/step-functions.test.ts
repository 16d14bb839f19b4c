import {
  CreateActivityCommand,
  CreateStateMachineCommand,
  DescribeExecutionCommand,
  GetExecutionHistoryCommand,
  ListExecutionsCommand,
  SendTaskFailureCommand,
  SendTaskHeartbeatCommand,
  SendTaskSuccessCommand,
  type SFNClient,
  StartExecutionCommand,
  StopExecutionCommand,
  UpdateStateMachineCommand,
} from "@aws-sdk/client-sfn";
import { ReceiveMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";
import { expect, test } from "vitest";
import { startTestStack, type TestStack } from "../test-stack.ts";

const queueName = "holdfast-site-local";
const waitTask = (more: object = {}) => ({
  Type: "Task",
  Resource: "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
  Parameters: {
    QueueUrl: queueName,
    MessageBody: { "token.$": "$$.Task.Token", "input.$": "$" },
  },
  ...more,
});
const lambda = (name: string, more: object = {}) => ({
  Type: "Task",
  Resource: `arn:aws:lambda:us-east-1:000000000000:function:${name}`,
  ...more,
});

async function create(sfn: SFNClient, definition: object, name = "machine"): Promise<string> {
  const text = JSON.stringify(definition);
  const roleArn = "arn:aws:iam::000000000000:role/x";
  const { stateMachineArn } = await sfn.send(
    new CreateStateMachineCommand({ name, definition: text, roleArn }),
  );
  return stateMachineArn ?? "";
}

const single = (state: object, more: object = {}) => ({
  StartAt: "Only",
  States: { Only: { End: true, ...state }, ...more },
});

async function start(sfn: SFNClient, stateMachineArn: string, input: unknown, name?: string) {
  const { executionArn } = await sfn.send(
    new StartExecutionCommand({ stateMachineArn, input: JSON.stringify(input), name }),
  );
  return executionArn ?? "";
}

async function ended(sfn: SFNClient, executionArn: string) {
  for (;;) {
    const found = await sfn.send(new DescribeExecutionCommand({ executionArn }));
    if (found.status !== "RUNNING") {
      const output = found.output === undefined ? undefined : (JSON.parse(found.output) as unknown);
      return { status: found.status, output, error: found.error, cause: found.cause };
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const run = async (stack: TestStack, definition: object, input: unknown = {}) =>
  ended(stack.sfn, await start(stack.sfn, await create(stack.sfn, definition), input));

async function nextToken(sqs: SQSClient, endpoint: string) {
  const QueueUrl = `${endpoint}/000000000000/${queueName}`;
  const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }));
  return JSON.parse(Messages?.[0]?.Body ?? "{}") as { token: string; input: unknown };
}

async function historyTypes(sfn: SFNClient, executionArn: string) {
  const { events = [] } = await sfn.send(
    new GetExecutionHistoryCommand({ executionArn, maxResults: 1000 }),
  );
  return events.map(({ type }) => type);
}

test("a task with a token waits for its answer and gives its output", async () => {
  await using stack = await startTestStack();
  const arn = await create(stack.sfn, single(waitTask({ ResultPath: "$.answer" })));
  const execution = await start(stack.sfn, arn, { job: 1 });
  const { token, input } = await nextToken(stack.sqs, stack.endpoint);
  expect(input).toEqual({ job: 1 });
  await stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: token }));
  await stack.sfn.send(new SendTaskSuccessCommand({ taskToken: token, output: '{"n":2}' }));
  expect(await ended(stack.sfn, execution)).toMatchObject({
    status: "SUCCEEDED",
    output: { job: 1, answer: { n: 2 } },
  });
  expect(await historyTypes(stack.sfn, execution)).toEqual([
    "ExecutionStarted",
    "TaskStateEntered",
    "TaskScheduled",
    "TaskStarted",
    "TaskSubmitted",
    "TaskSucceeded",
    "TaskStateExited",
    "ExecutionSucceeded",
  ]);
  await expect(
    stack.sfn.send(new SendTaskSuccessCommand({ taskToken: token, output: "{}" })),
  ).rejects.toMatchObject({ name: "TaskTimedOut" });
  await expect(
    stack.sfn.send(new SendTaskFailureCommand({ taskToken: token })),
  ).rejects.toMatchObject({ name: "TaskTimedOut" });
  await expect(
    stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: token })),
  ).rejects.toMatchObject({ name: "TaskTimedOut" });
  await expect(
    stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: "nonsense" })),
  ).rejects.toMatchObject({ name: "InvalidToken" });
  const other = Buffer.from(JSON.stringify(["no", "no", "0#0", "0"])).toString("base64url");
  await expect(
    stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: other })),
  ).rejects.toMatchObject({ name: "TaskDoesNotExist" });
});

test("a failure by token is retried, then caught by its name", async () => {
  await using stack = await startTestStack();
  const arn = await create(
    stack.sfn,
    single(
      waitTask({
        Retry: [
          { ErrorEquals: ["Again"], IntervalSeconds: 1, MaxAttempts: 1, JitterStrategy: "FULL" },
        ],
        Catch: [{ ErrorEquals: ["Again"], ResultPath: "$.error", Next: "Release" }],
      }),
      { Release: { Type: "Pass", End: true } },
    ),
  );
  const execution = await start(stack.sfn, arn, { job: 1 });
  const tokens: string[] = [];
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const { token } = await nextToken(stack.sqs, stack.endpoint);
    tokens.push(token);
    await stack.sfn.send(
      new SendTaskFailureCommand({ taskToken: token, error: "Again", cause: "because" }),
    );
  }
  expect(new Set(tokens).size).toBe(2);
  expect(await ended(stack.sfn, execution)).toMatchObject({
    status: "SUCCEEDED",
    output: { job: 1, error: { Error: "Again", Cause: "because" } },
  });
});

test("without heartbeats a task times out, with them it does not", async () => {
  await using stack = await startTestStack();
  const caught = { ErrorEquals: ["States.HeartbeatTimeout"], Next: "Release" };
  const arn = await create(
    stack.sfn,
    single(waitTask({ HeartbeatSeconds: 1, TimeoutSeconds: 60, Catch: [caught] }), {
      Release: { Type: "Pass", End: true },
    }),
  );
  const silent = await start(stack.sfn, arn, {});
  const { token } = await nextToken(stack.sqs, stack.endpoint);
  expect((await ended(stack.sfn, silent)).output).toMatchObject({
    Error: "States.HeartbeatTimeout",
  });
  await expect(
    stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: token })),
  ).rejects.toMatchObject({ name: "TaskTimedOut" });

  const alive = await start(stack.sfn, arn, {});
  const second = await nextToken(stack.sqs, stack.endpoint);
  for (const until = Date.now() + 1500; Date.now() < until; ) {
    await stack.sfn.send(new SendTaskHeartbeatCommand({ taskToken: second.token }));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await stack.sfn.send(new SendTaskSuccessCommand({ taskToken: second.token, output: '"fine"' }));
  expect((await ended(stack.sfn, alive)).output).toBe("fine");
});

test("TimeoutSeconds ends a task, and the machine's ends the execution", async () => {
  await using stack = await startTestStack();
  const timed = await run(stack, single(waitTask({ TimeoutSeconds: 1 })));
  expect(timed).toMatchObject({ status: "FAILED", error: "States.Timeout" });
  const whole = { ...single(waitTask()), TimeoutSeconds: 1 };
  const arn = await create(stack.sfn, whole, "whole");
  expect(await ended(stack.sfn, await start(stack.sfn, arn, {}))).toMatchObject({
    status: "TIMED_OUT",
  });
});

test("StartExecution is idempotent by name and input while it runs", async () => {
  await using stack = await startTestStack();
  const arn = await create(stack.sfn, single(waitTask()));
  const first = await start(stack.sfn, arn, { a: 1 }, "job-1");
  expect(await start(stack.sfn, arn, { a: 1 }, "job-1")).toBe(first);
  await expect(start(stack.sfn, arn, { a: 2 }, "job-1")).rejects.toMatchObject({
    name: "ExecutionAlreadyExists",
  });
  await expect(start(stack.sfn, arn, {}, "a b")).rejects.toMatchObject({ name: "InvalidName" });
  await stack.sfn.send(new StopExecutionCommand({ executionArn: first, error: "Why", cause: "c" }));
  expect(await ended(stack.sfn, first)).toMatchObject({ status: "ABORTED", error: "Why" });
  await expect(start(stack.sfn, arn, { a: 1 }, "job-1")).rejects.toMatchObject({
    name: "ExecutionAlreadyExists",
  });
  const { executions } = await stack.sfn.send(
    new ListExecutionsCommand({ stateMachineArn: arn, statusFilter: "ABORTED" }),
  );
  expect(executions?.map(({ name }) => name)).toEqual(["job-1"]);
});

test("functions run with JSON in and out; their errors keep name and message", async () => {
  class Busy extends Error {
    override name = "HoldfastBusy";
  }
  const handlers = {
    Double: (event: unknown) => ({ twice: (event as { n: number }).n * 2, gone: undefined }),
    Fails: () => {
      throw new Busy("the VM is locked");
    },
  };
  await using stack = await startTestStack({ handlers });
  const good = single(lambda("Double", { Parameters: { "n.$": "$.n" }, ResultPath: "$.r" }));
  expect((await run(stack, good, { n: 4 })).output).toEqual({ n: 4, r: { twice: 8 } });
  const invoke = {
    Type: "Task",
    Resource: "arn:aws:states:::lambda:invoke",
    Parameters: { FunctionName: "Double", Payload: { n: 3 } },
    ResultSelector: { "value.$": "$.Payload.twice" },
  };
  const arn = await create(stack.sfn, single(invoke), "invoke");
  expect((await ended(stack.sfn, await start(stack.sfn, arn, {}))).output).toEqual({ value: 6 });
  const bad = await create(stack.sfn, single(lambda("Fails")), "bad");
  const { error, cause } = await ended(stack.sfn, await start(stack.sfn, bad, {}));
  expect(error).toBe("HoldfastBusy");
  expect(JSON.parse(cause ?? "{}")).toMatchObject({ errorMessage: "the VM is locked" });
});

test("Map keeps order, passes items, and stops the others when one fails", async () => {
  await using stack = await startTestStack();
  const map = {
    Type: "Map",
    ItemsPath: "$.disks",
    MaxConcurrency: 2,
    ItemSelector: {
      "disk.$": "$$.Map.Item.Value",
      "index.$": "$$.Map.Item.Index",
      "job.$": "$.job",
    },
    ItemProcessor: {
      ProcessorConfig: { Mode: "INLINE" },
      StartAt: "Move",
      States: { Move: { ...waitTask(), End: true } },
    },
    Catch: [{ ErrorEquals: ["States.ALL"], Next: "Release" }],
  };
  const arn = await create(
    stack.sfn,
    single(map, { Release: { Type: "Pass", Parameters: { "why.$": "$.Error" }, End: true } }),
  );
  const execution = await start(stack.sfn, arn, { job: 7, disks: ["a", "b", "c"] });
  for (let i = 0; i < 3; i += 1) {
    const { token, input } = await nextToken(stack.sqs, stack.endpoint);
    await stack.sfn.send(
      new SendTaskSuccessCommand({ taskToken: token, output: JSON.stringify(input) }),
    );
  }
  expect((await ended(stack.sfn, execution)).output).toEqual([
    { disk: "a", index: 0, job: 7 },
    { disk: "b", index: 1, job: 7 },
    { disk: "c", index: 2, job: 7 },
  ]);
  const failing = await start(stack.sfn, arn, { job: 8, disks: ["a", "b"] });
  const first = await nextToken(stack.sqs, stack.endpoint);
  const second = await nextToken(stack.sqs, stack.endpoint);
  await stack.sfn.send(new SendTaskFailureCommand({ taskToken: first.token, error: "Broken" }));
  expect((await ended(stack.sfn, failing)).output).toEqual({ why: "Broken" });
  await expect(
    stack.sfn.send(new SendTaskSuccessCommand({ taskToken: second.token, output: "{}" })),
  ).rejects.toMatchObject({ name: "TaskTimedOut" });
  expect(await historyTypes(stack.sfn, failing)).toContain("MapIterationAborted");
});

test("a restart resumes: finished states are not run again, a waiting task keeps its token", async () => {
  const calls: string[] = [];
  const handlers = {
    Begin: () => {
      calls.push("begin");
      return { begun: true };
    },
    Release: () => {
      calls.push("release");
      return "released";
    },
  };
  await using stack = await startTestStack({ handlers });
  const arn = await create(stack.sfn, {
    StartAt: "Begin",
    States: {
      Begin: { ...lambda("Begin"), Next: "Move" },
      Move: {
        ...waitTask(),
        Next: "Release",
        Catch: [{ ErrorEquals: ["States.ALL"], Next: "Release" }],
      },
      Release: { ...lambda("Release"), End: true },
    },
  });
  const execution = await start(stack.sfn, arn, {});
  const { token } = await nextToken(stack.sqs, stack.endpoint);
  const again = await stack.restart();
  await again.sfn.send(new SendTaskHeartbeatCommand({ taskToken: token }));
  await again.sfn.send(new SendTaskSuccessCommand({ taskToken: token, output: "{}" }));
  expect(await ended(again.sfn, execution)).toMatchObject({
    status: "SUCCEEDED",
    output: "released",
  });
  expect(calls).toEqual(["begin", "release"]);
  const third = await again.restart();
  expect(await ended(third.sfn, execution)).toMatchObject({ output: "released" });
  expect((await historyTypes(third.sfn, execution)).at(-1)).toBe("ExecutionSucceeded");
});

test("a running execution keeps the definition it started with", async () => {
  await using stack = await startTestStack();
  const arn = await create(stack.sfn, single(waitTask()));
  const execution = await start(stack.sfn, arn, {});
  const { token } = await nextToken(stack.sqs, stack.endpoint);
  const definition = JSON.stringify(single({ Type: "Pass", Result: "new" }));
  await stack.sfn.send(new UpdateStateMachineCommand({ stateMachineArn: arn, definition }));
  const again = await stack.restart();
  await again.sfn.send(new SendTaskSuccessCommand({ taskToken: token, output: '"old"' }));
  expect((await ended(again.sfn, execution)).output).toBe("old");
  expect((await ended(again.sfn, await start(again.sfn, arn, {}))).output).toBe("new");
});

test("payloads over 256 KiB and histories over 25 000 events end the execution", async () => {
  const handlers = { Big: () => "x".repeat(262_144) };
  await using stack = await startTestStack({ handlers });
  const caught = { Catch: [{ ErrorEquals: ["States.ALL"], Next: "After" }] };
  const big = single(lambda("Big", caught), { After: { Type: "Succeed" } });
  expect(await run(stack, big)).toMatchObject({
    status: "FAILED",
    error: "States.DataLimitExceeded",
  });
  const loop = {
    StartAt: "Loop",
    States: { Loop: { Type: "Pass", Next: "Again" }, Again: { Type: "Pass", Next: "Loop" } },
  };
  const arn = await create(stack.sfn, loop, "loop");
  const execution = await start(stack.sfn, arn, {});
  expect(await ended(stack.sfn, execution)).toMatchObject({
    status: "FAILED",
    error: "States.Runtime",
    cause: expect.stringContaining("25000"),
  });
});

test.each([
  ["a query language", { QueryLanguage: "JSONata", ...single({ Type: "Pass" }) }, "QueryLanguage"],
  ["variables", single({ Type: "Pass", Assign: { a: 1 } }), "Assign"],
  [
    "distributed Map",
    single({
      Type: "Map",
      ItemProcessor: {
        ProcessorConfig: { Mode: "DISTRIBUTED" },
        StartAt: "P",
        States: { P: { Type: "Pass", End: true } },
      },
    }),
    "Mode",
  ],
  [
    "other services",
    single({ Type: "Task", Resource: "arn:aws:states:::sns:publish", Parameters: {} }),
    "sns:publish",
  ],
  [
    "activities",
    single({ Type: "Task", Resource: "arn:aws:states:us-east-1:0:activity:a" }),
    "activity",
  ],
  ["filters in paths", single({ Type: "Pass", InputPath: "$.a[?(@.b)]" }), "Filters"],
  [
    "unknown intrinsics",
    single({ Type: "Pass", Parameters: { "a.$": "States.Nope()" } }),
    "States.Nope",
  ],
  [
    "a missing state",
    { StartAt: "None", States: { P: { Type: "Pass", End: true } } },
    "no state None",
  ],
  [
    "a task that drops its token",
    single({ ...waitTask(), Parameters: { QueueUrl: "q", MessageBody: "m" } }),
    "Task.Token",
  ],
  [
    "a comparison that does not exist",
    {
      StartAt: "C",
      States: {
        C: { Type: "Choice", Choices: [{ Variable: "$.a", StringIsh: "b", Next: "D" }] },
        D: { Type: "Succeed" },
      },
    },
    "StringIsh",
  ],
])("%s is refused when the machine is created", async (_, definition, named) => {
  await using stack = await startTestStack();
  await expect(create(stack.sfn, definition)).rejects.toMatchObject({
    name: "InvalidDefinition",
    message: expect.stringContaining(named),
  });
});

test("operations that are not there are refused by their name", async () => {
  await using stack = await startTestStack();
  await expect(stack.sfn.send(new CreateActivityCommand({ name: "a" }))).rejects.toMatchObject({
    name: "UnknownOperationException",
    message: expect.stringContaining("AWSStepFunctions.CreateActivity"),
  });
});

test("a stop lets a running function end; what comes after it runs in the next process", async () => {
  const calls: string[] = [];
  const isIn = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const handlers = {
    Slow: async () => {
      calls.push("slow");
      isIn.resolve();
      await gate.promise;
      return 1;
    },
    After: () => calls.push("after"),
  };
  await using stack = await startTestStack({ handlers });
  const arn = await create(stack.sfn, {
    StartAt: "Slow",
    States: {
      Slow: { ...lambda("Slow"), Next: "After" },
      After: { ...lambda("After"), End: true },
    },
  });
  const execution = await start(stack.sfn, arn, {});
  await isIn.promise;
  const restarting = stack.restart();
  gate.resolve();
  const again = await restarting;
  expect((await ended(again.sfn, execution)).status).toBe("SUCCEEDED");
  expect(calls).toEqual(["slow", "after"]);
});
