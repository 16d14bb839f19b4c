import { ArnFormat, Stack } from "aws-cdk-lib";
import { ManagedPolicy, PolicyStatement } from "aws-cdk-lib/aws-iam";
import type { Bucket } from "aws-cdk-lib/aws-s3";
import type { Queue } from "aws-cdk-lib/aws-sqs";
import type { StateMachine } from "aws-cdk-lib/aws-stepfunctions";
import type { Construct } from "constructs";
import { acceptWildcard } from "./accept-wildcard.ts";
import type { CatalogTable } from "./catalog-table.ts";

export type MoverPolicyProps = {
  readonly repositoryBucket: Bucket;
  readonly catalog: CatalogTable;
  readonly queue: Queue;
  readonly stateMachines: readonly StateMachine[];
  /** Starts with a slash, ends without. */
  readonly parameterPrefix: string;
};

/**
 * What a mover of one site may do, wherever it runs: take work from its own queue, answer for it, and create and read
 * objects. It may not remove or replace an object, nor change how the bucket keeps them, nor read another site's queue.
 */
export function createMoverPolicy(
  scope: Construct,
  id: string,
  props: MoverPolicyProps,
): ManagedPolicy {
  const { repositoryBucket: bucket, queue, stateMachines } = props;
  const policy = new ManagedPolicy(scope, id, {
    description: "Holdfast: what a mover of this site may do",
    statements: [
      new PolicyStatement({
        actions: ["s3:PutObject", "s3:GetObject"],
        resources: [bucket.arnForObjects("*")],
      }),
      new PolicyStatement({ actions: ["s3:ListBucket"], resources: [bucket.bucketArn] }),
      new PolicyStatement({
        actions: ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
        resources: [queue.queueArn],
      }),
      new PolicyStatement({
        actions: ["states:SendTaskHeartbeat", "states:SendTaskSuccess", "states:SendTaskFailure"],
        resources: stateMachines.map((machine) => machine.stateMachineArn),
      }),
      new PolicyStatement({
        actions: ["ssm:GetParameter"],
        resources: [...secretArns(scope, props.parameterPrefix)],
      }),
      ...props.catalog.readWriteStatements(),
    ],
  });
  acceptSecrets(policy, props.parameterPrefix);
  acceptWildcard(
    policy,
    `${Stack.of(bucket).exportValue(bucket.bucketArn)}/*`,
    "The names of a repository's objects are random; what may be done with them is create and read.",
  );
  return policy;
}

/** The secrets that are added while Holdfast runs. The hash of the API's token is not among them. */
export function secretArns(scope: Construct, prefix: string): readonly string[] {
  return ["providers", "repositories"].map((kind) => parameterArn(scope, `${prefix}/${kind}/*`));
}

/** `name` starts with a slash. */
export function parameterArn(scope: Construct, name: string): string {
  return Stack.of(scope).formatArn({
    service: "ssm",
    resource: "parameter",
    resourceName: name.slice(1),
    arnFormat: ArnFormat.SLASH_RESOURCE_NAME,
  });
}

export function acceptSecrets(construct: Construct, prefix: string): void {
  const reason =
    "Credentials of providers and repositories are added while Holdfast runs; all of them live below this prefix.";
  for (const arn of secretArns(construct, prefix)) acceptWildcard(construct, arn, reason);
}
