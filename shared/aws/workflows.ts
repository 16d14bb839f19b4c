import {
  DescribeExecutionCommand,
  type SFNClient,
  StartExecutionCommand,
} from "@aws-sdk/client-sfn";
import type { Job } from "../contracts/catalog-items.ts";
import { Failure } from "../domain/failure.ts";
import type { Workflows } from "../ports/workflows.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";

/** Executions are named by the job, which makes StartExecution idempotent: the second one finds the first. */
export function createSfnWorkflows(options: {
  readonly client: SFNClient;
  readonly stateMachineArns: Readonly<Record<Job["kind"], string | undefined>>;
}): Workflows {
  const { client, stateMachineArns } = options;
  const arnOf = (kind: Job["kind"]): string => {
    const arn = stateMachineArns[kind];
    if (arn !== undefined) return arn;
    throw new Failure("internal", { message: `no state machine is set for ${kind} jobs` });
  };
  return {
    async start({ kind, jobId }, { siteQueueUrl }) {
      const stateMachineArn = arnOf(kind);
      try {
        await client.send(
          new StartExecutionCommand({
            stateMachineArn,
            name: jobId,
            input: JSON.stringify({ jobId, siteQueueUrl }),
          }),
        );
      } catch (error) {
        if (awsErrorName(error) === "ExecutionAlreadyExists") return;
        throw awsFailure(error, `starting the workflow of job ${jobId}`);
      }
    },
    async state({ kind, jobId }) {
      const executionArn = `${arnOf(kind).replace(":stateMachine:", ":execution:")}:${jobId}`;
      try {
        const { status } = await client.send(new DescribeExecutionCommand({ executionArn }));
        return status === "RUNNING" || status === "PENDING_REDRIVE" ? "running" : "ended";
      } catch (error) {
        if (awsErrorName(error) === "ExecutionDoesNotExist") return "absent";
        throw awsFailure(error, `looking up the workflow of job ${jobId}`);
      }
    },
  };
}
