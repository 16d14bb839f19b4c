import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  CreateStateMachineCommand,
  DescribeExecutionCommand,
  SendTaskFailureCommand,
  SendTaskSuccessCommand,
  StartExecutionCommand,
} from "@aws-sdk/client-sfn";
import { DeleteMessageCommand, ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { ExecutionError, StateMachine } from "aws-local-stepfunctions";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Json, JsonObject } from "../json.ts";
import { isJsonObject, parseJson } from "../json.ts";
import { functionArn } from "../names.ts";
import { startTestStack } from "../test-stack.ts";

/**
 * The same ASL in our interpreter and in the library aws-local-stepfunctions: same outcome, same states run. The
 * library knows no tokens, so its local handlers stand for the mover.
 */
type Outcome = { readonly status: string; readonly output?: Json; readonly error?: string };

let stack: Awaited<ReturnType<typeof startTestStack>>;
let calls: string[] = [];
let failing: string | undefined;

const taskAnswer: JsonObject = {
  jobId: "j",
  siteQueueUrl: "holdfast-site-local",
  disks: [{ diskKey: "vda" }, { diskKey: "vdb" }],
};

function act(state: string): Json {
  calls.push(state);
  if (state !== failing) return taskAnswer;
  const error = new Error("it failed");
  error.name = "HoldfastFailed";
  throw error;
}

const moving = new AbortController();
let mover: Promise<void>;

beforeAll(async () => {
  const handler = (event: Json) => act(String(isJsonObject(event) ? event["state"] : ""));
  stack = await startTestStack({ handlers: { Act: handler } });
  mover = move();
});
afterAll(async () => {
  moving.abort();
  await mover;
  await stack[Symbol.asyncDispose]();
});

afterEach(() => {
  failing = undefined;
});

async function move(): Promise<void> {
  const QueueUrl = `${stack.endpoint}/000000000000/holdfast-site-local`;
  const { signal } = moving;
  while (!signal.aborted) {
    const received = await stack.sqs
      .send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }), { abortSignal: signal })
      .catch(() => ({ Messages: [] }));
    for (const { Body = "", ReceiptHandle } of received.Messages ?? []) {
      const { taskToken, state } = parseJson(Body) as { taskToken: string; state: string };
      await stack.sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      await answer(taskToken, state).catch((error: unknown) => {
        // The other disk of a Map failed first: this task can no longer be answered.
        if (!(error instanceof Error) || error.name !== "TaskTimedOut") throw error;
      });
    }
  }
}

async function answer(taskToken: string, state: string): Promise<void> {
  let output: string;
  try {
    output = JSON.stringify(act(state));
  } catch {
    const failure = { taskToken, error: "HoldfastFailed", cause: "it failed" };
    await stack.sfn.send(new SendTaskFailureCommand(failure));
    return;
  }
  await stack.sfn.send(new SendTaskSuccessCommand({ taskToken, output }));
}

/** Every task calls the one function, or sends its message, with its state's name. */
function instrument(value: Json, tasks: string[]): Json {
  if (Array.isArray(value)) return value.map((item) => instrument(item, tasks));
  if (!isJsonObject(value)) return value;
  const changed = Object.entries(value).map(([name, inner]): [string, Json] => {
    if (!isJsonObject(inner) || inner["Type"] !== "Task") return [name, instrument(inner, tasks)];
    tasks.push(name);
    const parameters = isJsonObject(inner["Parameters"]) ? inner["Parameters"] : {};
    const body = parameters["MessageBody"];
    return isJsonObject(body)
      ? [name, { ...inner, Parameters: { ...parameters, MessageBody: { ...body, state: name } } }]
      : [
          name,
          { ...inner, Resource: functionArn("Act"), Parameters: { ...parameters, state: name } },
        ];
  });
  return Object.fromEntries(changed);
}

async function ours(name: string, definition: Json, input: Json): Promise<Outcome> {
  const { stateMachineArn } = await stack.sfn.send(
    new CreateStateMachineCommand({
      name,
      definition: JSON.stringify(definition),
      roleArn: "arn:aws:iam::000000000000:role/x",
    }),
  );
  const { executionArn } = await stack.sfn.send(
    new StartExecutionCommand({ stateMachineArn, input: JSON.stringify(input) }),
  );
  for (;;) {
    const found = await stack.sfn.send(new DescribeExecutionCommand({ executionArn }));
    if (found.status === "SUCCEEDED") {
      return { status: "SUCCEEDED", output: parseJson(found.output ?? "null") };
    }
    if (found.status !== "RUNNING") return { status: found.status ?? "", error: found.error ?? "" };
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function theirs(definition: Json, tasks: readonly string[], input: Json): Promise<Outcome> {
  const machine = new StateMachine(definition as never, {
    validationOptions: { checkPaths: false, checkArn: false },
  });
  const handlers = Object.fromEntries(tasks.map((name) => [name, async () => act(name)]));
  try {
    const output = (await machine.run(input as never, {
      overrides: { taskResourceLocalHandlers: handlers as never },
      context: { Task: { Token: "placeholder" } } as never,
    }).result) as Json;
    return { status: "SUCCEEDED", output };
  } catch (error) {
    if (!(error instanceof ExecutionError)) throw error;
    const cause = error.cause as { name?: string } | undefined;
    return { status: "FAILED", error: cause?.name ?? error.name };
  }
}

/** Lambda's causes are JSON with a trace; the library passes the message only. */
function withoutCauses(outcome: Outcome): Json {
  const text = JSON.stringify(outcome);
  return parseJson(text.replace(/"Cause":"(?:[^"\\]|\\.)*"/g, '"Cause":"…"'));
}

async function compare(name: string, definition: Json, input: Json) {
  const tasks: string[] = [];
  const instrumented = instrument(definition, tasks);
  calls = [];
  const expected = await theirs(instrumented, tasks, input);
  const expectedCalls = [...new Set(calls)];
  calls = [];
  expect(withoutCauses(await ours(name, instrumented, input))).toEqual(withoutCauses(expected));
  expect([...new Set(calls)]).toEqual(expectedCalls);
  return expectedCalls;
}

const folder = join(import.meta.dirname, "..", "..", "state-machines");
const files = readdirSync(folder).filter((file) => file.endsWith(".asl.json"));

const error = { Error: "ExecutionABORTED", Cause: "stopped" };
const started = { jobId: "j", siteQueueUrl: "holdfast-site-local", kind: "backup", error };

describe.each(files)("%s", (file) => {
  // `"ResultPath": "$"` is the default; the library loses the result when it is written out.
  const text = readFileSync(join(folder, file), "utf8")
    .replaceAll('"ResultPath": "$",', "")
    .replaceAll(/"Seconds": \d+/g, '"Seconds": 0');
  const definition = parseJson(text.replace(/\$\{\w+\}/g, functionArn("Act")));
  const tasks: string[] = [];
  instrument(definition, tasks);

  test.each([undefined, ...tasks])("the same states run when %s fails", async (task) => {
    failing = task;
    const ran = await compare(`${file.split(".")[0]}-${task ?? "nothing"}`, definition, {
      ...started,
    });
    expect(ran.length).toBeGreaterThan(0);
    // Whatever fails behind Begin, what was made on the hypervisor is released.
    const released = ran.some((name) => name.startsWith("Release"));
    const begun = file === "backup.asl.json" && task !== "Begin";
    expect(released).toBe(begun || file === "recover.asl.json");
  });

  test.runIf(file === "recover.asl.json").each([
    ["backup", ["Release", "Notify"]],
    ["restore", ["Abandon", "Notify"]],
    ["inspect", ["Notify"]],
  ])("a %s is cleaned up by %j, whichever of them fails", async (kind, states) => {
    for (const task of [undefined, states[0]]) {
      failing = task;
      const name = `recover-${kind}-${task}`;
      expect(await compare(name, definition, { ...started, kind })).toEqual(states);
    }
  });
});

const pass = (Parameters: JsonObject): Json => ({
  StartAt: "P",
  States: { P: { Type: "Pass", Parameters, End: true } },
});
const choice = (rule: JsonObject): Json => ({
  StartAt: "C",
  States: {
    C: { Type: "Choice", Choices: [{ ...rule, Next: "Yes" }], Default: "No" },
    Yes: { Type: "Pass", Result: "yes", End: true },
    No: { Type: "Pass", Result: "no", End: true },
  },
});
const input: Json = {
  s: "text",
  pattern: "log-2026.txt",
  n: 7,
  b: true,
  nil: null,
  t: "2026-03-01T12:00:00Z",
  list: [3, 1, 2, 3],
  empty: [],
  nested: { a: { "odd key": [10, 20, 30] } },
  rows: [{ v: 1 }, { v: 2 }],
};

const intrinsics: readonly string[] = [
  "States.Format('{} and {}', $.s, $.n)",
  "States.StringToJson('[1,{\"a\":2}]')",
  "States.JsonToString($.nested)",
  "States.Array($.s, 1, true, null)",
  "States.ArrayLength($.list)",
  "States.ArrayContains($.list, 2)",
  "States.ArrayGetItem($.list, 1)",
  "States.ArrayPartition($.list, 3)",
  "States.ArrayRange(1, 9, 3)",
  "States.ArrayUnique($.list)",
  "States.Base64Encode($.s)",
  "States.Base64Decode('dGV4dA==')",
  "States.Hash($.s, 'SHA-256')",
  "States.JsonMerge($.nested, $.rows[0], false)",
  "States.MathAdd($.n, -2)",
  "States.StringSplit('a.b.c', '.')",
  "States.Format('{}', States.MathAdd($.n, 1))",
];

test.each(intrinsics)("%s", async (call) => {
  await compare(`i-${intrinsics.indexOf(call)}`, pass({ "value.$": call }), input);
});

const paths = ["$", "$.nested.a['odd key'][1]", "$.list[1:3]", "$.rows[*].v", "$.nil"];
test.each(paths)("the path %s", async (path) => {
  await compare(`p-${paths.indexOf(path)}`, pass({ "value.$": path }), input);
});

const rules: readonly JsonObject[] = [
  { Variable: "$.s", StringEquals: "text" },
  { Variable: "$.s", StringEquals: "other" },
  { Variable: "$.s", StringGreaterThan: "tex" },
  { Variable: "$.n", NumericGreaterThanEquals: 7 },
  { Variable: "$.n", NumericLessThan: 7 },
  { Variable: "$.s", NumericEquals: 7 },
  { Variable: "$.n", NumericEqualsPath: "$.list[0]" },
  { Variable: "$.pattern", StringMatches: "log-*.txt" },
  { Variable: "$.pattern", StringMatches: "log-*.tx" },
  { Variable: "$.b", BooleanEquals: true },
  { Variable: "$.t", TimestampLessThan: "2026-03-01T13:00:00+00:30" },
  { Variable: "$.t", IsTimestamp: true },
  { Variable: "$.nil", IsNull: true },
  { Variable: "$.nil", IsPresent: true },
  { Not: { Variable: "$.b", BooleanEquals: true } },
  {
    And: [
      { Variable: "$.n", IsNumeric: true },
      { Variable: "$.s", IsString: true },
    ],
  },
  {
    Or: [
      { Variable: "$.n", NumericEquals: 1 },
      { Variable: "$.b", IsBoolean: true },
    ],
  },
];
test.each(rules)("the rule %j", async (rule) => {
  await compare(`r-${rules.indexOf(rule)}`, choice(rule), input);
});

const branch = (Result: Json): Json => ({
  StartAt: `B${JSON.stringify(Result).length}`,
  States: { [`B${JSON.stringify(Result).length}`]: { Type: "Pass", Result, End: true } },
});
const machines: Readonly<Record<string, Json>> = {
  "paths of input and output": {
    StartAt: "A",
    States: {
      A: {
        Type: "Pass",
        InputPath: "$.nested",
        Parameters: { "x.$": "$.a" },
        ResultPath: "$.made.deep",
        OutputPath: "$.made",
        Next: "B",
      },
      B: { Type: "Pass", ResultPath: null, End: true },
    },
  },
  "a discarded input": {
    StartAt: "A",
    States: { A: { Type: "Pass", InputPath: null, End: true } },
  },
  "a parallel state": {
    StartAt: "A",
    States: {
      A: {
        Type: "Parallel",
        Branches: [branch(1), branch("two")],
        ResultSelector: { "first.$": "$[0]", "all.$": "$" },
        ResultPath: "$.both",
        End: true,
      },
    },
  },
  "a map over rows": {
    StartAt: "M",
    States: {
      M: {
        Type: "Map",
        ItemsPath: "$.rows",
        ItemSelector: { "v.$": "$$.Map.Item.Value.v", "i.$": "$$.Map.Item.Index", "s.$": "$.s" },
        ItemProcessor: { StartAt: "I", States: { I: { Type: "Pass", End: true } } },
        ResultPath: "$.mapped",
        End: true,
      },
    },
  },
  "a map over nothing": {
    StartAt: "M",
    States: {
      M: {
        Type: "Map",
        ItemsPath: "$.empty",
        ItemProcessor: { StartAt: "I", States: { I: { Type: "Pass", End: true } } },
        End: true,
      },
    },
  },
  "a choice that nothing matches": {
    StartAt: "C",
    States: {
      C: { Type: "Choice", Choices: [{ Variable: "$.n", NumericEquals: 1, Next: "D" }] },
      D: { Type: "Succeed" },
    },
  },
  "a failure with texts from the input": {
    StartAt: "F",
    States: { F: { Type: "Fail", ErrorPath: "$.s", CausePath: "$.pattern" } },
  },
  "a path that leads nowhere, caught in a parallel state": {
    StartAt: "A",
    States: {
      A: {
        Type: "Parallel",
        Branches: [
          {
            StartAt: "X",
            States: { X: { Type: "Pass", Parameters: { "a.$": "$.no.where" }, End: true } },
          },
        ],
        Catch: [{ ErrorEquals: ["States.ALL"], ResultPath: "$.error", Next: "D" }],
        End: true,
      },
      D: { Type: "Pass", Parameters: { "error.$": "$.error.Error" }, End: true },
    },
  },
};
test.each(Object.keys(machines))("%s", async (name) => {
  const id = `m-${Object.keys(machines).indexOf(name)}`;
  await compare(id, machines[name] ?? null, input);
});

// Where the library departs from what AWS documents, only ours is asked.
const documented: readonly (readonly [string, Json, Outcome])[] = [
  [
    "every character splits",
    pass({ "v.$": "States.StringSplit('a.b-c', '.-')" }),
    { status: "SUCCEEDED", output: { v: ["a", "b", "c"] } },
  ],
  [
    "a missing value is not present",
    choice({ Variable: "$.none", IsPresent: false }),
    { status: "SUCCEEDED", output: "yes" },
  ],
  [
    "CausePath may call a function",
    { StartAt: "F", States: { F: { Type: "Fail", ErrorPath: "States.Format('E{}', $.n)" } } },
    { status: "FAILED", error: "E7" },
  ],
  [
    "ResultPath $ replaces the input",
    { StartAt: "P", States: { P: { Type: "Pass", Result: 1, ResultPath: "$", End: true } } },
    { status: "SUCCEEDED", output: 1 },
  ],
];
test.each(documented)("%s", async (name, definition, expected) => {
  const id = `d-${documented.findIndex(([other]) => other === name)}`;
  expect(await ours(id, definition, input)).toEqual(expected);
});
