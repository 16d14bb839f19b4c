import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventBridgeClient } from "@aws-sdk/client-eventbridge";
import { SchedulerClient } from "@aws-sdk/client-scheduler";
import { SFNClient } from "@aws-sdk/client-sfn";
import { SQSClient } from "@aws-sdk/client-sqs";
import { SSMClient } from "@aws-sdk/client-ssm";
import { type LocalStack, type LocalStackOptions, startLocalStack } from "./local-stack.ts";

/** For tests: real SDK clients against an endpoint. */
export function createClients(endpoint: string) {
  const options = {
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  };
  return {
    sqs: new SQSClient(options),
    sfn: new SFNClient(options),
    ssm: new SSMClient(options),
    scheduler: new SchedulerClient(options),
    events: new EventBridgeClient(options),
  };
}

export type TestStack = LocalStack &
  ReturnType<typeof createClients> & { restart(): Promise<TestStack> };

/** A stack without mover and state machines on a temporary state, removed by `await using`. */
export async function startTestStack(
  options: Partial<LocalStackOptions> = {},
): Promise<TestStack & AsyncDisposable> {
  const stateFolder = options.stateFolder ?? mkdtempSync(join(tmpdir(), "holdfast-stack-"));
  const start = async (): Promise<TestStack> => {
    const stack = await startLocalStack({
      functions: [],
      mover: false,
      stateMachinesFolder: null,
      ...options,
      stateFolder,
    });
    const restart = async () => {
      await stack.close();
      current = await start();
      return current;
    };
    return { ...stack, ...createClients(stack.endpoint), restart };
  };
  let current = await start();
  return {
    ...current,
    [Symbol.asyncDispose]: async () => {
      await current.close();
      rmSync(stateFolder, { recursive: true, force: true });
    },
  };
}
