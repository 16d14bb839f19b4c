import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { AwsError } from "../aws-error.ts";
import { openJsonMapFile } from "../durable/json-file.ts";
import type { Json, JsonObject } from "../json.ts";
import { account, queueArn } from "../names.ts";
import { epochSeconds, type OperationContext, type Operations, operation } from "../operations.ts";
import { md5, md5OfAttributes, openQueue, type Queue, type StoredMessage } from "./queue.ts";

/** SQS: standard queues as their documentation describes them. FIFO queues, batches and permissions are not there. */
export type Sqs = {
  readonly operations: Operations;
  /** Queue by name; undefined when there is none. */
  send(
    queueName: string,
    body: string,
    attributes?: JsonObject,
    delaySeconds?: number,
  ): Promise<StoredMessage>;
  exists(queueName: string): boolean;
  close(): void;
};

const messageSizeBytesMax = 1_048_576;
const hiddenSecondsMax = 43_200;
const inFlightMax = 120_000;

const queueAttributes = z.strictObject({
  VisibilityTimeout: seconds(0, hiddenSecondsMax).default(30),
  DelaySeconds: seconds(0, 900).default(0),
  ReceiveMessageWaitTimeSeconds: seconds(0, 20).default(0),
  MessageRetentionPeriod: seconds(60, 1_209_600).default(345_600),
  RedrivePolicy: z
    .string()
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        context.addIssue("RedrivePolicy is not JSON");
        return z.NEVER;
      }
    })
    .pipe(
      z.strictObject({
        deadLetterTargetArn: z.string(),
        maxReceiveCount: z.coerce.number().int().min(1).max(1000),
      }),
    )
    .optional(),
});

const QueueRecord = z.strictObject({
  name: z.string(),
  createdAt: z.number(),
  modifiedAt: z.number(),
  attributes: z.record(z.string(), z.string()),
});
type QueueRecord = z.infer<typeof QueueRecord>;

const messageAttributes = z.record(
  z.string(),
  z.strictObject({
    DataType: z.string(),
    StringValue: z.string().optional(),
    BinaryValue: z.string().optional(),
  }),
);

function seconds(from: number, to: number) {
  return z.coerce.number().int().min(from).max(to);
}

export function openSqs(folder: string, now: () => number = Date.now): Sqs {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const records = openJsonMapFile(join(folder, "queues.json"), (value) => QueueRecord.parse(value));
  const queues = new Map<string, Queue>();
  const waiters = new Map<string, Set<() => void>>();
  for (const { name } of records.values()) queues.set(name, openQueue(fileOf(name), now));

  function fileOf(name: string): string {
    return join(folder, `${name}.jsonl`);
  }
  function open(name: string): { record: QueueRecord; queue: Queue } {
    const record = records.get(name);
    const queue = queues.get(name);
    if (record === undefined || queue === undefined) {
      throw new AwsError("QueueDoesNotExist", `The queue ${name} does not exist`);
    }
    return { record, queue };
  }
  const openUrl = (url: string) => open(url.slice(url.lastIndexOf("/") + 1));
  const wake = (name: string) => {
    for (const resolve of waiters.get(name) ?? []) resolve();
  };
  const settings = (record: QueueRecord) => queueAttributes.parse(record.attributes);

  async function send(name: string, body: string, attributes: JsonObject, delaySeconds?: number) {
    const { record, queue } = open(name);
    if (body === "") throw new AwsError("MissingParameter", "MessageBody must not be empty");
    if (Buffer.byteLength(body) + JSON.stringify(attributes).length > messageSizeBytesMax) {
      throw new AwsError("InvalidParameterValue", "One message is at most 1 MiB");
    }
    const delay = delaySeconds ?? settings(record).DelaySeconds;
    const message = await queue.send(body, attributes, delay * 1000);
    wake(name);
    return message;
  }

  /** Hands out up to `count` messages; those received too often go to the dead-letter queue instead. */
  async function take(name: string, count: number, visibilitySeconds: number | undefined) {
    const { record, queue } = open(name);
    const { VisibilityTimeout, RedrivePolicy, MessageRetentionPeriod } = settings(record);
    const taken: { message: StoredMessage; receiptHandle: string }[] = [];
    if (queue.counts().hidden >= inFlightMax) {
      throw new AwsError("OverLimit", `More than ${inFlightMax} messages are in flight`);
    }
    for (const message of queue.visible()) {
      if (taken.length === count) break;
      // Others may have taken or deleted it while this receive waited for the disk.
      if (message.visibleAt > now() || !queue.has(message.id)) continue;
      if (message.sentAt + MessageRetentionPeriod * 1000 < now()) {
        await queue.delete(message.id);
      } else if (
        RedrivePolicy !== undefined &&
        message.receiveCount >= RedrivePolicy.maxReceiveCount
      ) {
        await moveToDeadLetters(queue, message, RedrivePolicy.deadLetterTargetArn);
      } else {
        const visibilityMs = (visibilitySeconds ?? VisibilityTimeout) * 1000;
        const receiptHandle = await queue.receive(message, visibilityMs);
        taken.push({ message: structuredClone(message), receiptHandle });
      }
    }
    return taken;
  }

  async function moveToDeadLetters(queue: Queue, message: StoredMessage, arn: string) {
    const name = arn.slice(arn.lastIndexOf(":") + 1);
    // Written there before it is deleted here: a crash in between leaves it in both, never in none.
    await open(name).queue.adopt(message);
    await queue.delete(message.id);
    wake(name);
  }

  async function receive(name: string, options: ReceiveOptions, signal: AbortSignal) {
    const endsAt = now() + options.waitSeconds * 1000;
    for (;;) {
      if (signal.aborted) return [];
      const taken = await take(name, options.count, options.visibilitySeconds);
      const remainingMs = endsAt - now();
      if (taken.length > 0 || remainingMs <= 0) return taken;
      const appearsInMs = (open(name).queue.nextVisibleAt() ?? Infinity) - now();
      await wait(name, Math.max(1, Math.min(remainingMs, appearsInMs)), signal);
    }
  }

  function wait(name: string, delayMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const set = waiters.get(name) ?? new Set();
      waiters.set(name, set);
      const done = () => {
        clearTimeout(timer);
        set.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, delayMs);
      set.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  function writeAttributes(name: string, attributes: Record<string, string>, createdAt: number) {
    const checked = queueAttributes.safeParse(attributes);
    if (!checked.success) {
      const { issues } = checked.error;
      const what = issues.map((issue) => `${issue.path.join(".")} ${issue.message}`).join("; ");
      throw new AwsError("InvalidAttributeName", `Queue attributes: ${what}`);
    }
    const deadLetters = checked.data.RedrivePolicy?.deadLetterTargetArn;
    if (deadLetters !== undefined) open(deadLetters.slice(deadLetters.lastIndexOf(":") + 1));
    records.set(name, { name, createdAt, modifiedAt: now(), attributes });
  }

  const QueueUrl = z.string();
  const urlOf = (name: string, { endpoint }: OperationContext) => `${endpoint}/${account}/${name}`;

  const operations: Operations = {
    CreateQueue: operation(
      z.strictObject({
        QueueName: z.string().regex(/^[A-Za-z0-9_-]{1,80}$/, "1 to 80 letters, digits, - and _"),
        Attributes: z.record(z.string(), z.string()).default({}),
        tags: z.record(z.string(), z.string()).optional(),
      }),
      ({ QueueName, Attributes }, context) => {
        const existing = records.get(QueueName);
        const differs = Object.entries(Attributes).some(
          ([key, value]) => existing !== undefined && existing.attributes[key] !== value,
        );
        if (differs) throw new AwsError("QueueNameExists", `${QueueName} has other attributes`);
        if (existing === undefined) {
          writeAttributes(QueueName, Attributes, now());
          queues.set(QueueName, openQueue(fileOf(QueueName), now));
        }
        return { QueueUrl: urlOf(QueueName, context) };
      },
    ),
    GetQueueUrl: operation(z.strictObject({ QueueName: z.string() }), (input, context) => ({
      QueueUrl: urlOf(open(input.QueueName).record.name, context),
    })),
    ListQueues: operation(
      z.strictObject({ QueueNamePrefix: z.string().default(""), MaxResults: z.int().optional() }),
      ({ QueueNamePrefix, MaxResults }, context) => ({
        QueueUrls: records
          .values()
          .filter(({ name }) => name.startsWith(QueueNamePrefix))
          .slice(0, MaxResults ?? 1000)
          .map(({ name }) => urlOf(name, context)),
      }),
    ),
    GetQueueAttributes: operation(
      z.strictObject({ QueueUrl, AttributeNames: z.array(z.string()).default([]) }),
      ({ QueueUrl: url, AttributeNames }) => {
        const { record, queue } = openUrl(url);
        const all = describe(record, queue, settings(record));
        const wanted = Object.entries(all).filter(
          ([name]) => AttributeNames.includes("All") || AttributeNames.includes(name),
        );
        return { Attributes: Object.fromEntries(wanted) };
      },
    ),
    SetQueueAttributes: operation(
      z.strictObject({ QueueUrl, Attributes: z.record(z.string(), z.string()) }),
      ({ QueueUrl: url, Attributes }) => {
        const { record } = openUrl(url);
        writeAttributes(record.name, { ...record.attributes, ...Attributes }, record.createdAt);
        return {};
      },
    ),
    SendMessage: operation(
      z.strictObject({
        QueueUrl,
        MessageBody: z.string(),
        DelaySeconds: seconds(0, 900).optional(),
        MessageAttributes: messageAttributes.default({}),
      }),
      async ({ QueueUrl: url, MessageBody, DelaySeconds, MessageAttributes }) => {
        const attributes = MessageAttributes as JsonObject;
        const { name } = openUrl(url).record;
        const message = await send(name, MessageBody, attributes, DelaySeconds);
        const digest = md5OfAttributes(attributes);
        return {
          MessageId: message.id,
          MD5OfMessageBody: md5(MessageBody),
          ...(digest === undefined ? {} : { MD5OfMessageAttributes: digest }),
        };
      },
    ),
    ReceiveMessage: operation(
      z.strictObject({
        QueueUrl,
        MaxNumberOfMessages: z.int().min(1).max(10).default(1),
        VisibilityTimeout: seconds(0, hiddenSecondsMax).optional(),
        WaitTimeSeconds: seconds(0, 20).optional(),
        AttributeNames: z.array(z.string()).default([]),
        MessageSystemAttributeNames: z.array(z.string()).default([]),
        MessageAttributeNames: z.array(z.string()).default([]),
      }),
      async (input, { signal }) => {
        const { record } = openUrl(input.QueueUrl);
        const options = {
          count: input.MaxNumberOfMessages,
          visibilitySeconds: input.VisibilityTimeout,
          waitSeconds: input.WaitTimeSeconds ?? settings(record).ReceiveMessageWaitTimeSeconds,
        };
        const taken = await receive(record.name, options, signal);
        const system = [...input.AttributeNames, ...input.MessageSystemAttributeNames];
        const Messages = taken.map(({ message, receiptHandle }) =>
          toReceived(message, receiptHandle, { system, own: input.MessageAttributeNames }),
        );
        return taken.length === 0 ? {} : { Messages };
      },
    ),
    DeleteMessage: operation(
      z.strictObject({ QueueUrl, ReceiptHandle: z.string() }),
      async ({ QueueUrl: url, ReceiptHandle }) => {
        const { queue } = openUrl(url);
        checkHandle(ReceiptHandle);
        // A stale handle succeeds and deletes nothing, as documented for standard queues.
        const message = queue.find(ReceiptHandle);
        if (message !== undefined) await queue.delete(message.id);
        return {};
      },
    ),
    ChangeMessageVisibility: operation(
      z.strictObject({
        QueueUrl,
        ReceiptHandle: z.string(),
        VisibilityTimeout: seconds(0, hiddenSecondsMax),
      }),
      async ({ QueueUrl: url, ReceiptHandle, VisibilityTimeout }) => {
        const { record, queue } = openUrl(url);
        checkHandle(ReceiptHandle);
        const message = queue.find(ReceiptHandle);
        if (message === undefined || message.visibleAt <= now()) {
          throw new AwsError(
            "MessageNotInflight",
            "The message does not exist, is not in flight, or was received again since",
          );
        }
        await queue.setVisibility(message, VisibilityTimeout * 1000);
        wake(record.name);
        return {};
      },
    ),
    PurgeQueue: operation(z.strictObject({ QueueUrl }), async ({ QueueUrl: url }) => {
      const { queue } = openUrl(url);
      for (const id of queue.ids()) await queue.delete(id);
      return {};
    }),
  };

  return {
    operations,
    send: (name, body, attributes = {}, delaySeconds = undefined) =>
      send(name, body, attributes, delaySeconds),
    exists: (name) => queues.has(name),
    close: () => {
      for (const name of waiters.keys()) wake(name);
      for (const queue of queues.values()) queue.close();
    },
  };
}

type ReceiveOptions = {
  readonly count: number;
  readonly visibilitySeconds: number | undefined;
  readonly waitSeconds: number;
};

function checkHandle(receiptHandle: string): void {
  if (/^[A-Za-z0-9_-]{64}$/.test(receiptHandle)) return;
  throw new AwsError("ReceiptHandleIsInvalid", "The receipt handle is not one of this service");
}

function describe(
  record: QueueRecord,
  queue: Queue,
  settings: z.infer<typeof queueAttributes>,
): Record<string, string> {
  const { visible, hidden, delayed } = queue.counts();
  const { RedrivePolicy, ...numbers } = settings;
  const texts = Object.entries(numbers).map(([name, value]) => [name, String(value)]);
  return {
    ...(Object.fromEntries(texts) as Record<string, string>),
    ...(RedrivePolicy === undefined ? {} : { RedrivePolicy: JSON.stringify(RedrivePolicy) }),
    QueueArn: queueArn(record.name),
    ApproximateNumberOfMessages: String(visible),
    ApproximateNumberOfMessagesNotVisible: String(hidden),
    ApproximateNumberOfMessagesDelayed: String(delayed),
    CreatedTimestamp: String(Math.floor(epochSeconds(record.createdAt))),
    LastModifiedTimestamp: String(Math.floor(epochSeconds(record.modifiedAt))),
    MaximumMessageSize: String(messageSizeBytesMax),
  };
}

function toReceived(
  message: StoredMessage,
  receiptHandle: string,
  wanted: { readonly system: readonly string[]; readonly own: readonly string[] },
): Json {
  const system: Record<string, string> = {
    ApproximateReceiveCount: String(message.receiveCount),
    ApproximateFirstReceiveTimestamp: String(message.firstReceivedAt ?? 0),
    SentTimestamp: String(message.sentAt),
    SenderId: account,
  };
  const pick = <T>(all: Readonly<Record<string, T>>, names: readonly string[]) =>
    Object.fromEntries(
      Object.entries(all).filter(
        ([name]) =>
          names.includes("All") ||
          names.includes(name) ||
          names.some((n) => n.endsWith(".*") && name.startsWith(n.slice(0, -1))),
      ),
    );
  const own = pick(message.attributes, wanted.own) as JsonObject;
  const digest = md5OfAttributes(own);
  return {
    MessageId: message.id,
    ReceiptHandle: receiptHandle,
    Body: message.body,
    MD5OfBody: md5(message.body),
    Attributes: pick(system, wanted.system),
    ...(digest === undefined ? {} : { MessageAttributes: own, MD5OfMessageAttributes: digest }),
  };
}
