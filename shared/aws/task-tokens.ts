import {
  SendTaskFailureCommand,
  SendTaskHeartbeatCommand,
  SendTaskSuccessCommand,
  type SFNClient,
} from "@aws-sdk/client-sfn";
import type { FailureRecord } from "../domain/failure.ts";
import type { TaskAnswers } from "../ports/task-queue.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";

/** The token's task timed out, was answered already, or its execution has ended. */
const gone = new Set(["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"]);
/** Step Functions takes 32 768 characters of cause; the parts are cut so that it stays JSON. */
const causesMax = 8;
const causeLengthMax = 1000;
const messageLengthMax = 4000;

export function createTaskTokens(client: SFNClient): TaskAnswers {
  const answer = async (doing: string, call: () => Promise<unknown>): Promise<boolean> => {
    try {
      await call();
      return true;
    } catch (error) {
      if (gone.has(awsErrorName(error))) return false;
      throw awsFailure(error, doing);
    }
  };
  return {
    heartbeat: (taskToken) =>
      answer("sending a task's heartbeat", () =>
        client.send(new SendTaskHeartbeatCommand({ taskToken })),
      ),
    async succeed(taskToken) {
      await answer("reporting a task's success", () =>
        client.send(new SendTaskSuccessCommand({ taskToken, output: "{}" })),
      );
    },
    async fail(taskToken, { error, record }) {
      const cause: FailureRecord = {
        code: record.code,
        message: record.message.slice(0, messageLengthMax),
        causes: record.causes.slice(0, causesMax).map((text) => text.slice(0, causeLengthMax)),
      };
      await answer("reporting a task's failure", () =>
        client.send(new SendTaskFailureCommand({ taskToken, error, cause: JSON.stringify(cause) })),
      );
    },
  };
}
