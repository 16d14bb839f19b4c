import {
  ChangeMessageVisibilityCommand,
  DeleteMessageCommand,
  ReceiveMessageCommand,
  type SQSClient,
} from "@aws-sdk/client-sqs";
import type { TaskQueue } from "../ports/task-queue.ts";
import { awsErrorName, awsFailure, callAws } from "./aws-failures.ts";

const waitSeconds = 20;
/** The message was removed, or is another receiver's by now. */
const staleReceipt = new Set([
  "ReceiptHandleIsInvalid",
  "MessageNotInflight",
  "InvalidParameterValue",
  "AWS.SimpleQueueService.MessageNotInflight",
]);

/** A site's queue on SQS: one message at a time, hidden while it works, removed once answered. */
export function createSiteQueue(options: {
  readonly client: SQSClient;
  readonly queueUrl: string;
  readonly visibilitySeconds: number;
}): TaskQueue {
  const { client, queueUrl: QueueUrl, visibilitySeconds } = options;
  const unlessStale = async (doing: string, call: () => Promise<unknown>): Promise<void> => {
    try {
      await call();
    } catch (error) {
      if (!staleReceipt.has(awsErrorName(error))) throw awsFailure(error, doing);
    }
  };
  return {
    async receive(signal) {
      if (signal.aborted) return undefined;
      const answer = await callAws("receiving from the site's queue", async () => {
        try {
          return await client.send(
            new ReceiveMessageCommand({
              QueueUrl,
              MaxNumberOfMessages: 1,
              WaitTimeSeconds: waitSeconds,
              VisibilityTimeout: visibilitySeconds,
            }),
            { abortSignal: signal },
          );
        } catch (error) {
          if (signal.aborted) return undefined;
          throw error;
        }
      });
      const message = answer?.Messages?.[0];
      if (message?.Body === undefined || message.ReceiptHandle === undefined) return undefined;
      return {
        messageId: message.MessageId ?? "",
        body: message.Body,
        receipt: message.ReceiptHandle,
      };
    },
    extend: (receipt, seconds) =>
      unlessStale("extending a task message", () =>
        client.send(
          new ChangeMessageVisibilityCommand({
            QueueUrl,
            ReceiptHandle: receipt,
            VisibilityTimeout: seconds,
          }),
        ),
      ),
    remove: (receipt) =>
      unlessStale("removing a task message", () =>
        client.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: receipt })),
      ),
  };
}
