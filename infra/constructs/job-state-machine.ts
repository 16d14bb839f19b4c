import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ArnFormat, RemovalPolicy, Stack, Validations } from "aws-cdk-lib";
import { PolicyStatement } from "aws-cdk-lib/aws-iam";
import type { Function as LambdaFunction } from "aws-cdk-lib/aws-lambda";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import type { Queue } from "aws-cdk-lib/aws-sqs";
import { DefinitionBody, LogLevel, StateMachine } from "aws-cdk-lib/aws-stepfunctions";
import { Construct } from "constructs";

export const jobKinds = ["backup", "restore", "inspect"] as const;
/** `recover` is started for jobs whose own execution ended without ending them. */
export const workflowKinds = [...jobKinds, "recover"] as const;
export type WorkflowKind = (typeof workflowKinds)[number];

export type JobStateMachineProps = {
  readonly kind: WorkflowKind;
  readonly stateMachineName: string;
  /** The ASL text, with functions as placeholders: `${BeginBackup}`. */
  readonly definition: string;
  readonly functions: ReadonlyMap<string, LambdaFunction>;
  readonly siteQueues: readonly Queue[];
};

/** A kind of job as a state machine. The definition is the ASL file as it is, the one that the local stack runs too. */
export class JobStateMachine extends Construct {
  readonly stateMachine: StateMachine;

  constructor(scope: Construct, id: string, props: JobStateMachineProps) {
    super(scope, id);
    const used = functionsOf(props);
    const logs = new LogGroup(this, "Log", {
      retention: RetentionDays.THREE_MONTHS,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.stateMachine = new StateMachine(this, "StateMachine", {
      // Functions that a state machine calls start state machines too; a fixed name unties that knot.
      stateMachineName: props.stateMachineName,
      definitionBody: DefinitionBody.fromString(props.definition),
      definitionSubstitutions: Object.fromEntries(
        used.map(([name, lambda]) => [name, lambda.functionArn]),
      ),
      // Without execution data: it has the task tokens in it.
      logs: { destination: logs, level: LogLevel.ALL, includeExecutionData: false },
      tracingEnabled: true,
    });
    const { role } = this.stateMachine;
    role.addToPrincipalPolicy(
      new PolicyStatement({
        actions: ["sqs:SendMessage"],
        resources: props.siteQueues.map((queue) => queue.queueArn),
      }),
    );
    role.addToPrincipalPolicy(
      new PolicyStatement({
        actions: ["lambda:InvokeFunction"],
        resources: used.map(([, lambda]) => lambda.functionArn),
      }),
    );
    Validations.of(role).acknowledge({
      id: "AwsSolutions-IAM5[Resource::*]",
      reason:
        "Log delivery (logs:*LogDelivery, resource policies) and X-Ray know no resources; the actions are named one by one.",
    });
  }
}

export function readDefinition(root: string, kind: WorkflowKind): string {
  return readFileSync(join(root, "infra/state-machines", `${kind}.asl.json`), "utf8");
}

/** The ARN by name alone, for those that the state machine itself depends on. */
export function stateMachineArn(scope: Construct, stateMachineName: string): string {
  return Stack.of(scope).formatArn({
    service: "states",
    resource: "stateMachine",
    resourceName: stateMachineName,
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
}

function functionsOf({
  kind,
  definition,
  functions,
}: JobStateMachineProps): readonly (readonly [string, LambdaFunction])[] {
  const names = new Set([...definition.matchAll(/\$\{(\w+)\}/g)].map(([, name = ""]) => name));
  return [...names].map((name) => {
    const lambda = functions.get(name);
    if (lambda !== undefined) return [name, lambda] as const;
    throw new Error(`${kind}.asl.json names \${${name}}, which infra/function-table.ts has not`);
  });
}
