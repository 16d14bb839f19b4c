import {
  DescribeExecutionCommand,
  type SFNClient,
  StartExecutionCommand,
} from "@aws-sdk/client-sfn";
import type { Job } from "../contracts/catalog-items.ts";
import { Failure } from "../domain/failure.ts";
import type { Workflows } from "../ports/workflows.ts";
import { awsErrorName, awsFailure } from "./aws-failures.ts";

type ExecutionState = "running" | "ended" | "absent";

/** Executions are named by the job, which makes StartExecution idempotent: the second one finds the first. */
export function createSfnWorkflows(options: {
  readonly client: SFNClient;
  readonly stateMachineArns: Readonly<Record<Job["kind"] | "recover", string | undefined>>;
}): Workflows {
  const { client, stateMachineArns } = options;
  const arnOf = (kind: Job["kind"] | "recover"): string => {
    const arn = stateMachineArns[kind];
    if (arn !== undefined) return arn;
    throw new Failure("internal", { message: `no state machine is set for ${kind} jobs` });
  };

  async function start(stateMachineArn: string, name: string, input: object): Promise<void> {
    try {
      await client.send(
        new StartExecutionCommand({ stateMachineArn, name, input: JSON.stringify(input) }),
      );
    } catch (error) {
      if (awsErrorName(error) === "ExecutionAlreadyExists") return;
      throw awsFailure(error, `starting the workflow of job ${name}`);
    }
  }

  async function stateOf(stateMachineArn: string, name: string): Promise<ExecutionState> {
    const executionArn = `${stateMachineArn.replace(":stateMachine:", ":execution:")}:${name}`;
    try {
      const { status } = await client.send(new DescribeExecutionCommand({ executionArn }));
      return status === "RUNNING" || status === "PENDING_REDRIVE" ? "running" : "ended";
    } catch (error) {
      if (awsErrorName(error) === "ExecutionDoesNotExist") return "absent";
      throw awsFailure(error, `looking up the workflow of job ${name}`);
    }
  }

  return {
    start: ({ kind, jobId }, { siteQueueUrl }) =>
      start(arnOf(kind), jobId, { jobId, siteQueueUrl }),
    recover: ({ kind, jobId }, { siteQueueUrl, error }) =>
      start(arnOf("recover"), jobId, { jobId, siteQueueUrl, kind, error }),
    async state({ kind, jobId }) {
      const own = await stateOf(arnOf(kind), jobId);
      if (own !== "ended") return own;
      const recovery = await stateOf(arnOf("recover"), jobId);
      return recovery === "absent" ? "orphaned" : recovery;
    },
  };
}
