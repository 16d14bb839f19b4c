import { Duration, RemovalPolicy, Validations } from "aws-cdk-lib";
import { AdjustmentType, MetricAggregationType } from "aws-cdk-lib/aws-applicationautoscaling";
import { MathExpression } from "aws-cdk-lib/aws-cloudwatch";
import type { Repository } from "aws-cdk-lib/aws-ecr";
import {
  type Cluster,
  ContainerImage,
  CpuArchitecture,
  FargateService,
  FargateTaskDefinition,
  type ICluster,
  LinuxParameters,
  LogDrivers,
  OperatingSystemFamily,
} from "aws-cdk-lib/aws-ecs";
import type { ManagedPolicy } from "aws-cdk-lib/aws-iam";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import type { Queue } from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";
import type { MoverNetwork } from "./mover-network.ts";

/** Fargate ends a task this long after SIGTERM at the latest. */
const stopSecondsMax = 120;
const idleMinutes = 15;

export type MoverServiceProps = {
  readonly cluster: Cluster;
  readonly network: MoverNetwork;
  readonly images: Repository;
  readonly imageTag: string;
  readonly policy: ManagedPolicy;
  readonly queue: Queue;
  readonly moversMin: number;
  readonly moversMax: number;
  readonly environment: Readonly<Record<string, string>>;
};

/**
 * Movers of a site that run in this account. Their number rises while tasks wait. It falls only to the minimum, and only
 * after a while in which no task waited or ran, so a mover is never ended for scale while it works.
 */
export class MoverService extends Construct {
  readonly taskDefinition: FargateTaskDefinition;
  readonly service: FargateService;

  constructor(scope: Construct, id: string, props: MoverServiceProps) {
    super(scope, id);
    this.taskDefinition = new FargateTaskDefinition(this, "Task", {
      cpu: 2048,
      memoryLimitMiB: 4096,
      runtimePlatform: {
        cpuArchitecture: CpuArchitecture.X86_64,
        operatingSystemFamily: OperatingSystemFamily.LINUX,
      },
    });
    this.taskDefinition.taskRole.addManagedPolicy(props.policy);
    const logGroup = new LogGroup(this, "Log", {
      retention: RetentionDays.THREE_MONTHS,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.taskDefinition.addContainer("mover", {
      image: ContainerImage.fromEcrRepository(props.images, props.imageTag),
      environment: { ...props.environment, DRAIN_SECONDS: String(stopSecondsMax - 20) },
      logging: LogDrivers.awsLogs({ logGroup, streamPrefix: "mover" }),
      stopTimeout: Duration.seconds(stopSecondsMax),
      linuxParameters: new LinuxParameters(this, "Linux", { initProcessEnabled: true }),
    });
    this.service = new FargateService(this, "Service", {
      // CDK's class and interface differ under exactOptionalPropertyTypes (an optional getter).
      cluster: props.cluster as ICluster,
      taskDefinition: this.taskDefinition,
      vpcSubnets: props.network.subnets,
      securityGroups: [props.network.securityGroup],
      assignPublicIp: props.network.assignPublicIp,
      // Old movers finish what they hold while new ones start.
      minHealthyPercent: 100,
      maxHealthyPercent: 200,
      circuitBreaker: { rollback: true },
    });
    this.#scale(props);
    Validations.of(this.taskDefinition).acknowledge(
      {
        id: "AwsSolutions-ECS2",
        reason:
          "The environment names the table, the queue and the site; secrets are in the parameter store.",
      },
      {
        id: "AwsSolutions-IAM5[Resource::*]",
        reason:
          "ecr:GetAuthorizationToken knows no resources; pulling is granted on the one repository.",
      },
    );
  }

  #scale({ queue, moversMin, moversMax }: MoverServiceProps): void {
    const scaling = this.service.autoScaleTaskCount({
      minCapacity: moversMin,
      maxCapacity: moversMax,
    });
    const period = Duration.minutes(1);
    const waiting = queue.metricApproximateNumberOfMessagesVisible({
      period,
      statistic: "Maximum",
    });
    const running = queue.metricApproximateNumberOfMessagesNotVisible({
      period,
      statistic: "Maximum",
    });
    scaling.scaleOnMetric("Waiting", {
      metric: waiting,
      adjustmentType: AdjustmentType.CHANGE_IN_CAPACITY,
      scalingSteps: [
        { lower: 1, change: 1 },
        { lower: 9, change: 3 },
        { lower: 33, change: 10 },
      ],
      // A new mover needs about a minute before it takes its first task.
      cooldown: Duration.minutes(2),
    });
    scaling.scaleOnMetric("Idle", {
      metric: new MathExpression({
        expression: "IF(waiting + running > 0, 0, 1)",
        label: "no task waits or runs",
        period,
        usingMetrics: { waiting, running },
      }),
      adjustmentType: AdjustmentType.EXACT_CAPACITY,
      scalingSteps: [
        { lower: 1, change: moversMin },
        { lower: 2, change: moversMin },
      ],
      evaluationPeriods: idleMinutes,
      datapointsToAlarm: idleMinutes,
      // Idle counts only if it lasted: one minute of work in between makes the average less than 1.
      metricAggregationType: MetricAggregationType.MINIMUM,
    });
  }
}
