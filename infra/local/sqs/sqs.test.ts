import {
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  ListQueuesCommand,
  PurgeQueueCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  type SQSClient,
} from "@aws-sdk/client-sqs";
import { expect, test } from "vitest";
import { startTestStack } from "../test-stack.ts";

async function createQueue(sqs: SQSClient, name: string, Attributes: Record<string, string> = {}) {
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: name, Attributes }));
  return { QueueUrl: QueueUrl ?? "" };
}

const receive = (sqs: SQSClient, queue: { QueueUrl: string }, more = {}) =>
  sqs
    .send(new ReceiveMessageCommand({ ...queue, MessageSystemAttributeNames: ["All"], ...more }))
    .then(({ Messages = [] }) => Messages);

test("a message comes back with its attributes, counts receipts, and is hidden meanwhile", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "one");
  await stack.sqs.send(
    new SendMessageCommand({
      ...queue,
      MessageBody: "größe ✓",
      MessageAttributes: {
        b: { DataType: "String", StringValue: "x" },
        a: { DataType: "Binary", BinaryValue: Uint8Array.of(1, 2, 255) },
      },
    }),
  );
  const [message] = await receive(stack.sqs, queue, { MessageAttributeNames: ["All"] });
  expect(message?.Body).toBe("größe ✓");
  expect(message?.MessageAttributes?.["a"]?.BinaryValue).toEqual(Uint8Array.of(1, 2, 255));
  expect(message?.Attributes?.["ApproximateReceiveCount"]).toBe("1");
  expect(await receive(stack.sqs, queue)).toEqual([]);
  const { Attributes } = await stack.sqs.send(
    new GetQueueAttributesCommand({ ...queue, AttributeNames: ["All"] }),
  );
  expect(Attributes?.["ApproximateNumberOfMessagesNotVisible"]).toBe("1");
});

test("a stale receipt handle deletes nothing and renews nothing", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "stale");
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m" }));
  const [first] = await receive(stack.sqs, queue);
  const handle = { ...queue, ReceiptHandle: first?.ReceiptHandle };
  await stack.sqs.send(new ChangeMessageVisibilityCommand({ ...handle, VisibilityTimeout: 0 }));
  const [second] = await receive(stack.sqs, queue);
  expect(second?.MessageId).toBe(first?.MessageId);
  expect(second?.Attributes?.["ApproximateReceiveCount"]).toBe("2");
  await stack.sqs.send(new DeleteMessageCommand(handle));
  await expect(
    stack.sqs.send(new ChangeMessageVisibilityCommand({ ...handle, VisibilityTimeout: 9 })),
  ).rejects.toMatchObject({ name: "MessageNotInflight" });
  const current = { ...queue, ReceiptHandle: second?.ReceiptHandle };
  await stack.sqs.send(new ChangeMessageVisibilityCommand({ ...current, VisibilityTimeout: 0 }));
  const [third] = await receive(stack.sqs, queue);
  await stack.sqs.send(new DeleteMessageCommand({ ...queue, ReceiptHandle: third?.ReceiptHandle }));
  expect(await receive(stack.sqs, queue)).toEqual([]);
  await expect(
    stack.sqs.send(new DeleteMessageCommand({ ...queue, ReceiptHandle: "nonsense" })),
  ).rejects.toMatchObject({ name: "ReceiptHandleIsInvalid" });
});

test("a message reappears when its visibility time-out ends, and a long poll waits for that", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "again", { VisibilityTimeout: "1" });
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m" }));
  const [first] = await receive(stack.sqs, queue);
  const [second] = await receive(stack.sqs, queue, { WaitTimeSeconds: 20 });
  expect(second?.MessageId).toBe(first?.MessageId);
  expect(second?.ReceiptHandle).not.toBe(first?.ReceiptHandle);
});

test("a long poll answers as soon as a message is sent", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "poll");
  const waiting = receive(stack.sqs, queue, { WaitTimeSeconds: 20 });
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m" }));
  expect((await waiting).map(({ Body }) => Body)).toEqual(["m"]);
});

test("a poller that went away takes no message with it", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "gone");
  const controller = new AbortController();
  const gone = stack.sqs.send(new ReceiveMessageCommand({ ...queue, WaitTimeSeconds: 20 }), {
    abortSignal: controller.signal,
  });
  const ended = expect(gone).rejects.toThrow();
  // The poll is under way once another request was answered behind it.
  await stack.sqs.send(new ListQueuesCommand({}));
  controller.abort();
  await ended;
  await stack.sqs.send(new ListQueuesCommand({}));
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m" }));
  const [message] = await receive(stack.sqs, queue, { WaitTimeSeconds: 5 });
  expect(message?.Attributes?.["ApproximateReceiveCount"]).toBe("1");
});

test("received too often, a message moves to the dead-letter queue", async () => {
  await using stack = await startTestStack();
  const dead = await createQueue(stack.sqs, "dead");
  const RedrivePolicy = JSON.stringify({
    deadLetterTargetArn: "arn:aws:sqs:us-east-1:000000000000:dead",
    maxReceiveCount: 2,
  });
  const queue = await createQueue(stack.sqs, "live", { RedrivePolicy });
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "poison" }));
  for (const count of ["1", "2"]) {
    const [message] = await receive(stack.sqs, queue, { VisibilityTimeout: 0 });
    expect(message?.Attributes?.["ApproximateReceiveCount"]).toBe(count);
  }
  expect(await receive(stack.sqs, queue)).toEqual([]);
  expect((await receive(stack.sqs, dead)).map(({ Body }) => Body)).toEqual(["poison"]);
  await expect(
    createQueue(stack.sqs, "other", { RedrivePolicy: RedrivePolicy.replace(":dead", ":none") }),
  ).rejects.toMatchObject({ name: "QueueDoesNotExist" });
});

test("messages, receipts and attributes survive a restart", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "kept");
  for (const MessageBody of ["hidden", "waiting"]) {
    await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody }));
  }
  await stack.sqs.send(
    new SetQueueAttributesCommand({ ...queue, Attributes: { VisibilityTimeout: "77" } }),
  );
  const [hidden] = await receive(stack.sqs, queue);
  const { sqs, endpoint } = await stack.restart();
  expect(endpoint).toBe(stack.endpoint);
  expect((await receive(sqs, queue)).map(({ Body }) => Body)).toEqual(["waiting"]);
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({ ...queue, AttributeNames: ["VisibilityTimeout"] }),
  );
  expect(Attributes).toEqual({ VisibilityTimeout: "77" });
  const handle = { ...queue, ReceiptHandle: hidden?.ReceiptHandle };
  await sqs.send(new ChangeMessageVisibilityCommand({ ...handle, VisibilityTimeout: 0 }));
  const [again] = await receive(sqs, queue);
  expect(again?.Attributes?.["ApproximateReceiveCount"]).toBe("2");
});

test("what is not there is refused by its name", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "q");
  const Entries = [{ Id: "1", MessageBody: "m" }];
  await expect(
    stack.sqs.send(new SendMessageBatchCommand({ ...queue, Entries })),
  ).rejects.toMatchObject({
    name: "UnknownOperationException",
    message: expect.stringContaining("AmazonSQS.SendMessageBatch"),
  });
  await expect(stack.sqs.send(new GetQueueUrlCommand({ QueueName: "none" }))).rejects.toMatchObject(
    { name: "QueueDoesNotExist" },
  );
  await expect(createQueue(stack.sqs, "fifo", { FifoQueue: "true" })).rejects.toThrow("FifoQueue");
  await expect(
    stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m", MessageGroupId: "g" })),
  ).rejects.toThrow("MessageGroupId");
});

test("purge empties a queue", async () => {
  await using stack = await startTestStack();
  const queue = await createQueue(stack.sqs, "purged");
  await stack.sqs.send(new SendMessageCommand({ ...queue, MessageBody: "m" }));
  await stack.sqs.send(new PurgeQueueCommand(queue));
  expect(await receive(stack.sqs, queue)).toEqual([]);
});
