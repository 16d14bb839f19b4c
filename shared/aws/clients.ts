import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { EventBridgeClient } from "@aws-sdk/client-eventbridge";
import { KMSClient } from "@aws-sdk/client-kms";
import { SchedulerClient } from "@aws-sdk/client-scheduler";
import { SFNClient } from "@aws-sdk/client-sfn";
import { SQSClient } from "@aws-sdk/client-sqs";
import { SSMClient } from "@aws-sdk/client-ssm";
import { DynamoDBDocumentClient } from "@aws-sdk/lib-dynamodb";

/**
 * SDK clients with our limits. Region, credentials and `AWS_ENDPOINT_URL` are the SDK's own settings from the
 * environment, so that the local stack, an emulator or AWS differ in nothing but that.
 */
const attemptsMax = 5;
const connectMs = 3_000;
const answerMs = 10_000;
/** A long poll takes up to 20 s by itself. */
const longPollMs = 30_000;

const limits = (requestTimeout = answerMs) => ({
  maxAttempts: attemptsMax,
  retryMode: "standard",
  requestHandler: { connectionTimeout: connectMs, requestTimeout, throwOnRequestTimeout: true },
});

export function createDocumentClient(): DynamoDBDocumentClient {
  return DynamoDBDocumentClient.from(new DynamoDBClient(limits()), documentOptions);
}

/** Absent means absent: `undefined` is left out, and nothing else is changed on its way. */
export const documentOptions = {
  marshallOptions: { removeUndefinedValues: true, convertEmptyValues: false },
};

export const createSqsClient = (): SQSClient => new SQSClient(limits(longPollMs));
export const createSfnClient = (): SFNClient => new SFNClient(limits());
export const createSsmClient = (): SSMClient => new SSMClient(limits());
export const createSchedulerClient = (): SchedulerClient => new SchedulerClient(limits());
export const createEventBridgeClient = (): EventBridgeClient => new EventBridgeClient(limits());
export const createKmsClient = (region: string): KMSClient =>
  new KMSClient({ ...limits(), region });
