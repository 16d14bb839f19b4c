import type { FunctionSettings } from "@holdfast/shared/contracts/settings";
import { ArnFormat, Stack } from "aws-cdk-lib";
import { EventBus, Rule } from "aws-cdk-lib/aws-events";
import { LambdaFunction as LambdaTarget } from "aws-cdk-lib/aws-events-targets";
import { type IRole, PolicyStatement } from "aws-cdk-lib/aws-iam";
import type { Code, Function as LambdaFunction } from "aws-cdk-lib/aws-lambda";
import type { Queue } from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";
import type { z } from "zod";
import { type FunctionEntry, functionTable } from "../function-table.ts";
import { acceptWildcard } from "./accept-wildcard.ts";
import type { CatalogTable } from "./catalog-table.ts";
import { ControlFunction } from "./control-function.ts";
import {
  JobStateMachine,
  jobKinds,
  stateMachineArn,
  type WorkflowKind,
  workflowKinds,
} from "./job-state-machine.ts";
import { acceptSecrets, parameterArn, secretArns } from "./mover-policy.ts";
import { PolicySchedules } from "./policy-schedules.ts";

export type FunctionName = (typeof functionTable)[number]["name"];
type Environment = z.input<typeof FunctionSettings>;

/** The parameter with the SHA-256 (hex) of the API's token; its name follows the installation's prefix. */
const apiTokenName = "api-token-sha256";

/** What a function may do besides reading and writing the catalog. */
type Right = "start-jobs" | "publish-events" | "set-schedules" | "keep-secrets";
const rights: Readonly<Record<FunctionName, readonly Right[]>> = {
  BeginBackup: ["start-jobs"],
  PlanTransfer: [],
  Commit: [],
  Retention: [],
  BeginRestore: ["start-jobs"],
  PlanRestore: [],
  FinishJob: ["publish-events"],
  RecoverJob: ["start-jobs"],
  Dispatch: ["start-jobs"],
  Api: ["start-jobs", "set-schedules", "keep-secrets"],
};

export type ControlPlaneProps = {
  readonly name: string;
  readonly catalog: CatalogTable;
  readonly siteQueues: readonly Queue[];
  /** The name of a site's queue is this and the site's id. */
  readonly siteQueueNamePrefix: string;
  readonly parameterPrefix: string;
  /** True when the gateway checks tokens, so that the function need not. */
  readonly gatewayAuthorises: boolean;
  readonly bundle: (entry: FunctionEntry) => Code;
  readonly definitionOf: (kind: WorkflowKind) => string;
};

/** Functions, state machines, event bus and schedules: what decides, and never touches a byte of backup data. */
export class ControlPlane extends Construct {
  readonly functions: ReadonlyMap<string, LambdaFunction>;
  readonly stateMachines: readonly JobStateMachine[];

  constructor(scope: Construct, id: string, props: ControlPlaneProps) {
    super(scope, id);
    const bus = new EventBus(this, "Events", { eventBusName: `${props.name}-events` });
    const environment = this.#environment(props, bus);
    const functions = new Map<FunctionName, LambdaFunction>();
    for (const entry of functionTable) {
      const code = props.bundle(entry);
      const { lambda } = new ControlFunction(this, entry.name, { entry, code, environment });
      for (const statement of props.catalog.readWriteStatements())
        lambda.addToRolePolicy(statement);
      functions.set(entry.name, lambda);
    }
    this.functions = functions;
    const schedules = new PolicySchedules(this, "Schedules", {
      groupName: `${props.name}-policies`,
      target: needed(functions, "Dispatch"),
    });
    // Only the API sets schedules, and their target is another function.
    const api = needed(functions, "Api");
    api.addEnvironment("SCHEDULE_TARGET_ARN", needed(functions, "Dispatch").functionArn);
    api.addEnvironment("SCHEDULE_ROLE_ARN", schedules.role.roleArn);
    api.addEnvironment("SCHEDULE_GROUP", schedules.groupName);
    this.#grantRights(functions, { ...props, bus, schedules });
    this.stateMachines = workflowKinds.map(
      (kind) =>
        new JobStateMachine(this, `${kind.charAt(0).toUpperCase()}${kind.slice(1)}`, {
          kind,
          stateMachineName: `${props.name}-${kind}`,
          definition: props.definitionOf(kind),
          functions,
          siteQueues: props.siteQueues,
        }),
    );
    this.#watchExecutions(props.name, needed(functions, "RecoverJob"));
  }

  /** Ends of jobs' executions, told by Step Functions itself, go to the function that looks whether their jobs have ended. */
  #watchExecutions(name: string, target: LambdaFunction): void {
    new Rule(this, "ExecutionsEnded", {
      eventPattern: {
        source: ["aws.states"],
        detailType: ["Step Functions Execution Status Change"],
        detail: {
          status: ["FAILED", "TIMED_OUT", "ABORTED"],
          stateMachineArn: jobKinds.map((kind) => stateMachineArn(this, `${name}-${kind}`)),
        },
      },
      targets: [new LambdaTarget(target)],
    });
  }

  #environment(props: ControlPlaneProps, bus: EventBus): Record<string, string> {
    const { region, account, urlSuffix } = Stack.of(this);
    const settings = {
      CATALOG_TABLE: props.catalog.table.tableName,
      BACKUP_STATE_MACHINE_ARN: stateMachineArn(this, `${props.name}-backup`),
      RECOVER_STATE_MACHINE_ARN: stateMachineArn(this, `${props.name}-recover`),
      RESTORE_STATE_MACHINE_ARN: stateMachineArn(this, `${props.name}-restore`),
      INSPECT_STATE_MACHINE_ARN: stateMachineArn(this, `${props.name}-inspect`),
      SITE_QUEUE_URL_PREFIX: `https://sqs.${region}.${urlSuffix}/${account}/${props.siteQueueNamePrefix}`,
      EVENT_BUS_NAME: bus.eventBusName,
      PARAMETER_PREFIX: props.parameterPrefix,
    } satisfies Environment;
    if (props.gatewayAuthorises) return settings;
    const token = { API_TOKEN_PARAMETER: `${props.parameterPrefix}/${apiTokenName}` };
    return { ...settings, ...(token satisfies Partial<Environment>) };
  }

  #grantRights(
    functions: ReadonlyMap<FunctionName, LambdaFunction>,
    context: ControlPlaneProps & { readonly bus: EventBus; readonly schedules: PolicySchedules },
  ): void {
    for (const [name, lambda] of functions) {
      for (const right of rights[name]) {
        for (const statement of this.#statements(right, context)) lambda.addToRolePolicy(statement);
        if (lambda.role !== undefined)
          this.#acceptWildcards(right, { ...context, role: lambda.role });
      }
    }
  }

  #statements(
    right: Right,
    context: ControlPlaneProps & { readonly bus: EventBus; readonly schedules: PolicySchedules },
  ): readonly PolicyStatement[] {
    const { name, bus, schedules, parameterPrefix } = context;
    const stack = Stack.of(this);
    switch (right) {
      case "start-jobs": {
        const arns = workflowKinds.map((kind) => stateMachineArn(this, `${name}-${kind}`));
        const executions = workflowKinds.map((kind) => executionsArn(stack, `${name}-${kind}`));
        return [
          new PolicyStatement({ actions: ["states:StartExecution"], resources: arns }),
          new PolicyStatement({ actions: ["states:DescribeExecution"], resources: executions }),
        ];
      }
      case "publish-events":
        return [
          new PolicyStatement({ actions: ["events:PutEvents"], resources: [bus.eventBusArn] }),
        ];
      case "set-schedules":
        return [
          new PolicyStatement({
            actions: [
              "scheduler:CreateSchedule",
              "scheduler:UpdateSchedule",
              "scheduler:DeleteSchedule",
            ],
            resources: [schedulesArn(stack, schedules.groupName)],
          }),
          new PolicyStatement({
            actions: ["iam:PassRole"],
            resources: [schedules.role.roleArn],
            conditions: { StringEquals: { "iam:PassedToService": "scheduler.amazonaws.com" } },
          }),
        ];
      case "keep-secrets":
        return [
          new PolicyStatement({
            actions: ["ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"],
            resources: [...secretArns(this, parameterPrefix)],
          }),
          new PolicyStatement({
            actions: ["ssm:GetParameter"],
            resources: [parameterArn(this, `${parameterPrefix}/${apiTokenName}`)],
          }),
        ];
      default:
        return right satisfies never;
    }
  }

  #acceptWildcards(
    right: Right,
    context: ControlPlaneProps & { readonly role: IRole; readonly schedules: PolicySchedules },
  ): void {
    const { role, name, parameterPrefix, schedules } = context;
    const stack = Stack.of(this);
    if (right === "keep-secrets") acceptSecrets(role, parameterPrefix);
    if (right === "set-schedules") {
      const reason = "One schedule for each policy, in a group that holds nothing else.";
      acceptWildcard(role, schedulesArn(stack, schedules.groupName), reason);
    }
    if (right !== "start-jobs") return;
    for (const kind of workflowKinds) {
      const reason =
        "An execution is named after its job; only the state of executions can be read.";
      acceptWildcard(role, executionsArn(stack, `${name}-${kind}`), reason);
    }
  }
}

function executionsArn(stack: Stack, stateMachineName: string): string {
  return stack.formatArn({
    service: "states",
    resource: "execution",
    resourceName: `${stateMachineName}:*`,
    arnFormat: ArnFormat.COLON_RESOURCE_NAME,
  });
}

function schedulesArn(stack: Stack, groupName: string): string {
  return stack.formatArn({
    service: "scheduler",
    resource: "schedule",
    resourceName: `${groupName}/*`,
  });
}

function needed(
  functions: ReadonlyMap<string, LambdaFunction>,
  name: FunctionName,
): LambdaFunction {
  const lambda = functions.get(name);
  if (lambda === undefined) throw new Error(`infra/function-table.ts has no ${name}`);
  return lambda;
}
