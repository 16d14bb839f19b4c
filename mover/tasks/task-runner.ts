/**
 * Runs one task message from claim to answer. What always holds:
 * a task is answered at most once by the mover that holds its claim; a mover that lost claim, token or lock stops
 * within one heartbeat and touches only its own; a message is deleted only after its answer was accepted or is moot.
 */
import {
  type Job,
  jobStatesEnded,
  type TaskRecord,
} from "@holdfast/shared/contracts/catalog-items";
import { type Task, TaskMessage, taskErrors } from "@holdfast/shared/contracts/tasks";
import { asFailure, Failure, isFailure, toFailureRecord } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { ReceivedTask, TaskAnswers, TaskQueue } from "@holdfast/shared/ports/task-queue";
import { runStage } from "../stages/run-stage.ts";
import { type MoverServices, type StageContext, tell } from "../stages/stage.ts";

export type TaskRunnerOptions = {
  readonly services: MoverServices;
  readonly queue: TaskQueue;
  readonly answers: TaskAnswers;
  readonly moverId: string;
  readonly heartbeatMs: number;
  readonly visibilitySeconds: number;
  readonly logger: Logger;
};

/** How often a driver looks after its guest's scratch space during a transfer: what fills in 5 s must fit in half of `scratchBytesMin`. */
const watchMs = 5000;
/** How long a task that waits for a place rests between two words about it: far below the 90 s after which it counts as dead. */
const waitSeconds = 15;
/** A task that was begun so often and never ended takes its movers with it; drains and retries alone do not come near. */
const claimsMax = 30;
/** Failed heartbeats or watches in a row that are ridden out. */
const troublesMax = 4;

export function taskName(task: Task): string {
  return "diskKey" in task ? `${task.kind}:${task.diskKey}` : task.kind;
}

/** `drain` aborts when the mover is told to stop: the task ends soon, unanswered, and its message comes back for another mover. */
export async function runTask(
  received: ReceivedTask,
  options: TaskRunnerOptions,
  drain: AbortSignal,
): Promise<void> {
  const message = parseMessage(received.body);
  if (message === undefined) {
    // It comes back and ends in the dead-letter queue, where an operator can see it.
    options.logger.error("message not understood", { messageId: received.messageId });
    return;
  }
  const name = taskName(message.task);
  const logger = options.logger.with({ jobId: message.jobId, task: name });
  const { answers, queue, services } = options;
  if (!(await answers.heartbeat(message.taskToken))) {
    logger.info("task is no longer waited for");
    await queue.remove(received.receipt);
    return;
  }
  const job = await services.catalog.getJob(message.jobId);
  const record = await services.catalog.claimTask(message.jobId, name, options.moverId);
  if (record.result !== undefined) {
    await answers.succeed(message.taskToken);
    await queue.remove(received.receipt);
    return;
  }
  logger.info("task started", { claim: record.claim });
  await runClaimed({ message, received, job, record, logger, options, drain });
}

/**
 * For a task that all places are taken for: the workflow hears that it still waits, and it goes back into the queue, where
 * any mover with a free place finds it. One that is moot, or whose job is cancelled, is answered at once.
 */
export async function tendTask(
  received: ReceivedTask,
  options: Pick<TaskRunnerOptions, "answers" | "queue" | "services" | "logger">,
): Promise<void> {
  const { answers, queue, services, logger } = options;
  const message = parseMessage(received.body);
  if (message === undefined) {
    logger.error("message not understood", { messageId: received.messageId });
    return;
  }
  if (!(await answers.heartbeat(message.taskToken))) return queue.remove(received.receipt);
  const { state } = await services.catalog.getJob(message.jobId);
  if (isCancellable(message.task) && state === "cancelling") {
    const record = { code: "cancelled", message: "the job was cancelled", causes: [] } as const;
    await answers.fail(message.taskToken, { error: taskErrors.cancelled, record });
    return queue.remove(received.receipt);
  }
  await queue.extend(received.receipt, waitSeconds);
}

const isCancellable = ({ kind }: Task): boolean => kind !== "release" && kind !== "abandon-restore";

type Claimed = {
  readonly message: TaskMessage;
  readonly received: ReceivedTask;
  readonly job: Job;
  readonly record: TaskRecord;
  readonly logger: Logger;
  readonly options: TaskRunnerOptions;
  readonly drain: AbortSignal;
};

async function runClaimed(claimed: Claimed): Promise<void> {
  const { message, received, job, record, logger, options, drain } = claimed;
  const { services, queue, answers } = options;
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, drain]);
  const checks: (() => Promise<void>)[] = [];
  const context: StageContext = {
    ...services,
    job,
    record,
    signal,
    logger,
    watch: (check) => checks.push(check),
  };
  const heartbeats = keepAlive(claimed, checks, stop);
  try {
    if (record.claim > claimsMax) throw endsMovers(record);
    const result = await runStage(context, message.task);
    await services.catalog.finishTask(job.jobId, record, result);
    await heartbeats.end();
    await answers.succeed(message.taskToken);
    await queue.remove(received.receipt);
    logger.info("task finished");
  } catch (error) {
    await heartbeats.end();
    // The first reason to stop is the cause; what the aborted work threw is its consequence.
    const cause = stop.signal.aborted ? stop.signal.reason : error;
    if (drain.aborted) return handBack(claimed);
    if (isFailure(cause, "fence.lost")) {
      logger.warn("task was taken over", { reason: cause.message });
      return;
    }
    await answerFailure(claimed, context, asFailure(cause, "internal", "unexpected error"));
  }
}

function endsMovers({ taskName, claim }: TaskRecord): Failure {
  return new Failure("internal", {
    message: `${taskName} was begun ${claim - 1} times and never ended: it seems to end its movers; their logs tell how`,
  });
}

/** The mover drains: the message becomes visible at once, and the next mover goes on from the checkpoint. */
async function handBack({ received, logger, options }: Claimed): Promise<void> {
  logger.info("task handed back");
  await options.queue.extend(received.receipt, 0);
}

async function answerFailure(
  claimed: Claimed,
  context: StageContext,
  failure: Failure,
): Promise<void> {
  const { message, received, logger, options } = claimed;
  const record = toFailureRecord(failure);
  logger.error("task failed", {
    code: record.code,
    message: record.message,
    causes: record.causes,
  });
  const retryable = failure.kind.retryable;
  const error = isFailure(failure, "cancelled")
    ? taskErrors.cancelled
    : retryable
      ? taskErrors.retryable
      : taskErrors.failed;
  await tell(
    context,
    retryable ? "warn" : "error",
    `${taskName(message.task)}: ${failure.message}${retryable ? " (will be tried again)" : ""}`,
  );
  await options.answers.fail(message.taskToken, { error, record });
  await options.queue.remove(received.receipt);
}

/** Renews token and visibility, and aborts the work when the job is cancelled, the claim is lost, or a watch fails. */
function keepAlive(
  { message, received, record, logger, options }: Claimed,
  checks: readonly (() => Promise<void>)[],
  stop: AbortController,
): { end(): Promise<void> } {
  const { services, queue, answers, heartbeatMs, visibilitySeconds } = options;
  const cancellable = isCancellable(message.task);
  const ended = new AbortController();

  async function beat(): Promise<void> {
    if (!(await answers.heartbeat(message.taskToken))) {
      throw new Failure("fence.lost", { message: "the workflow no longer waits for this task" });
    }
    await queue.extend(received.receipt, visibilitySeconds);
    await services.catalog.confirmClaim(message.jobId, record);
    const { state } = await services.catalog.getJob(message.jobId);
    if (cancellable && (state === "cancelling" || jobStatesEnded.includes(state))) {
      throw new Failure("cancelled", { message: "the job was cancelled" });
    }
  }

  async function watch(): Promise<void> {
    for (const check of checks) await check();
  }

  async function repeat(everyMs: number, action: () => Promise<void>): Promise<void> {
    for (let troubles = 0; ; ) {
      try {
        await services.clock.sleep(everyMs, ended.signal);
      } catch {
        return;
      }
      try {
        await action();
        troubles = 0;
      } catch (error) {
        // A service that is away for a moment is no reason to stop moving bytes; the token's own limit decides.
        if (isFailure(error) && error.kind.retryable && troubles < troublesMax) {
          troubles += 1;
          logger.warn("heartbeat or watch failed", { troubles, message: error.message });
          continue;
        }
        stop.abort(error);
        return;
      }
    }
  }

  const running = Promise.all([repeat(heartbeatMs, beat), repeat(watchMs, watch)]);
  return {
    async end() {
      ended.abort();
      await running;
    },
  };
}

function parseMessage(body: string): TaskMessage | undefined {
  try {
    return TaskMessage.parse(JSON.parse(body));
  } catch {
    return undefined;
  }
}
