import {
  DeleteRuleCommand,
  ListRulesCommand,
  ListTargetsByRuleCommand,
  PutEventsCommand,
  PutRuleCommand,
  PutTargetsCommand,
  RemoveTargetsCommand,
  StartReplayCommand,
} from "@aws-sdk/client-eventbridge";
import { CreateStateMachineCommand, StartExecutionCommand } from "@aws-sdk/client-sfn";
import { ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { expect, test } from "vitest";
import { startTestStack } from "../test-stack.ts";

const bus = { EventBusName: "holdfast-local" };
const queueArn = "arn:aws:sqs:us-east-1:000000000000:holdfast-site-local";

test("an event goes to the targets of the rules that match it, and to no other", async () => {
  const seen: unknown[] = [];
  await using stack = await startTestStack({ handlers: { Hear: (event) => seen.push(event) } });
  const rule = async (Name: string, pattern: object, Arn: string) => {
    const EventPattern = JSON.stringify(pattern);
    await stack.events.send(new PutRuleCommand({ ...bus, Name, EventPattern }));
    await stack.events.send(
      new PutTargetsCommand({ ...bus, Rule: Name, Targets: [{ Id: "t", Arn }] }),
    );
  };
  await rule("ended", { source: ["holdfast"], "detail-type": ["Job ended"] }, queueArn);
  const hear = "arn:aws:lambda:us-east-1:000000000000:function:Hear";
  await rule("other", { source: ["elsewhere"] }, hear);
  const { Entries, FailedEntryCount } = await stack.events.send(
    new PutEventsCommand({
      Entries: [
        { ...bus, Source: "holdfast", DetailType: "Job started", Detail: "{}" },
        { ...bus, Source: "holdfast", DetailType: "Job ended", Detail: '{"jobId":"j"}' },
        { ...bus, Source: "holdfast", DetailType: "Job ended", Detail: "not JSON" },
      ],
    }),
  );
  expect(FailedEntryCount).toBe(1);
  expect(Entries?.map(({ ErrorCode }) => ErrorCode)).toEqual([
    undefined,
    undefined,
    "MalformedDetail",
  ]);
  const QueueUrl = `${stack.endpoint}/000000000000/holdfast-site-local`;
  const { Messages = [] } = await stack.sqs.send(
    new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 10, MaxNumberOfMessages: 10 }),
  );
  expect(Messages.map(({ Body }) => JSON.parse(Body ?? ""))).toMatchObject([
    { "detail-type": "Job ended", detail: { jobId: "j" } },
  ]);
  expect(seen).toEqual([]);
});

test("rules and targets are listed and removed, and survive a restart", async () => {
  await using stack = await startTestStack();
  const EventPattern = JSON.stringify({ source: ["s"] });
  await stack.events.send(new PutRuleCommand({ ...bus, Name: "r", EventPattern }));
  const Targets = [{ Id: "t", Arn: queueArn }];
  await stack.events.send(new PutTargetsCommand({ ...bus, Rule: "r", Targets }));
  const { events } = await stack.restart();
  const { Rules } = await events.send(new ListRulesCommand(bus));
  expect(Rules).toMatchObject([{ Name: "r", State: "ENABLED", EventPattern }]);
  expect(await events.send(new ListTargetsByRuleCommand({ ...bus, Rule: "r" }))).toMatchObject({
    Targets,
  });
  const remove = new DeleteRuleCommand({ ...bus, Name: "r" });
  await expect(events.send(remove)).rejects.toMatchObject({ name: "ValidationException" });
  await events.send(new RemoveTargetsCommand({ ...bus, Rule: "r", Ids: ["t"] }));
  await events.send(new DeleteRuleCommand({ ...bus, Name: "r" }));
  expect((await events.send(new ListRulesCommand(bus))).Rules).toEqual([]);
});

test("patterns, targets and operations that are not there are refused by their name", async () => {
  await using stack = await startTestStack();
  const rule = (pattern: object) =>
    stack.events.send(
      new PutRuleCommand({ ...bus, Name: "r", EventPattern: JSON.stringify(pattern) }),
    );
  await expect(rule({ source: [{ prefix: "s" }] })).rejects.toMatchObject({
    name: "InvalidEventPatternException",
  });
  await expect(rule({ source: ["s"], detail: { a: ["b"] } })).rejects.toThrow("detail");
  await rule({ source: ["s"] });
  const Targets = [{ Id: "t", Arn: "arn:aws:sns:us-east-1:000000000000:topic" }];
  await expect(
    stack.events.send(new PutTargetsCommand({ ...bus, Rule: "r", Targets })),
  ).rejects.toThrow("sns");
  const replay = new StartReplayCommand({
    ReplayName: "r",
    EventSourceArn: "a",
    EventStartTime: new Date(0),
    EventEndTime: new Date(1),
    Destination: { Arn: "a" },
  });
  await expect(stack.events.send(replay)).rejects.toThrow("AWSEvents.StartReplay");
});

test("the end of an execution is told to the default bus", async () => {
  const handlers = { Fails: () => Promise.reject(new Error("no")) };
  await using stack = await startTestStack({ handlers });
  const pattern = {
    source: ["aws.states"],
    "detail-type": ["Step Functions Execution Status Change"],
  };
  const EventPattern = JSON.stringify(pattern);
  await stack.events.send(new PutRuleCommand({ Name: "ends", EventPattern }));
  const Targets = [{ Id: "t", Arn: queueArn }];
  await stack.events.send(new PutTargetsCommand({ Rule: "ends", Targets }));
  const Resource = "arn:aws:lambda:us-east-1:000000000000:function:Fails";
  const states = { Only: { Type: "Task", Resource, End: true } };
  const { stateMachineArn } = await stack.sfn.send(
    new CreateStateMachineCommand({
      name: "m",
      roleArn: "arn:aws:iam::000000000000:role/x",
      definition: JSON.stringify({ StartAt: "Only", States: states }),
    }),
  );
  await stack.sfn.send(new StartExecutionCommand({ stateMachineArn, name: "job" }));
  const QueueUrl = `${stack.endpoint}/000000000000/holdfast-site-local`;
  const { Messages } = await stack.sqs.send(
    new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }),
  );
  expect(JSON.parse(Messages?.[0]?.Body ?? "{}")).toMatchObject({
    detail: { name: "job", status: "FAILED", stateMachineArn },
  });
});
