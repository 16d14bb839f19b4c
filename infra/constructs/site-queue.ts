import { Duration, RemovalPolicy } from "aws-cdk-lib";
import { Alarm, ComparisonOperator, TreatMissingData } from "aws-cdk-lib/aws-cloudwatch";
import { Queue, QueueEncryption } from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";

/**
 * The most that SQS allows: a task that waits for a mover with a free place is received every 15 seconds. What ends its
 * movers is stopped by its claims (mover/tasks/task-runner.ts); what nobody understands ends here.
 */
const receivesMax = 1000;

export type SiteQueueProps = { readonly queueName: string };

/** The queue of one site, from which its movers take work, and the one beside it for work that nobody could do. */
export class SiteQueue extends Construct {
  readonly queue: Queue;
  readonly deadLetters: Queue;

  constructor(scope: Construct, id: string, props: SiteQueueProps) {
    super(scope, id);
    const common = {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: Duration.days(14),
      removalPolicy: RemovalPolicy.DESTROY,
    };
    this.deadLetters = new Queue(this, "DeadLetters", common);
    this.queue = new Queue(this, "Queue", {
      ...common,
      // Movers know it by its name, see SITE_QUEUE_URL_PREFIX.
      queueName: props.queueName,
      receiveMessageWaitTime: Duration.seconds(20),
      visibilityTimeout: Duration.seconds(45),
      deadLetterQueue: { queue: this.deadLetters, maxReceiveCount: receivesMax },
    });
    new Alarm(this, "DeadLettersAlarm", {
      alarmDescription:
        "Work of a site that no mover could do: see the job whose id is in the message.",
      metric: this.deadLetters.metricApproximateNumberOfMessagesVisible({
        period: Duration.minutes(5),
      }),
      threshold: 0,
      comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: 1,
      treatMissingData: TreatMissingData.NOT_BREACHING,
    });
  }
}
