import type { FailureRecord } from "../domain/failure.ts";

/** A site's queue, as the mover uses it. */
export interface TaskQueue {
  /** Waits up to 20 s for one message; undefined when there is none. */
  receive(signal: AbortSignal): Promise<ReceivedTask | undefined>;
  /** Hides the message for so many seconds from now; 0 makes it visible at once. A stale receipt is no failure. */
  extend(receipt: string, visibilitySeconds: number): Promise<void>;
  remove(receipt: string): Promise<void>;
}

export type ReceivedTask = {
  readonly messageId: string;
  readonly body: string;
  readonly receipt: string;
};

/** Answers to the workflow. An answer that nobody waits for any more is no failure. */
export interface TaskAnswers {
  /** False when the workflow no longer waits for this token. */
  heartbeat(taskToken: string): Promise<boolean>;
  succeed(taskToken: string): Promise<void>;
  fail(
    taskToken: string,
    failure: { readonly error: string; readonly record: FailureRecord },
  ): Promise<void>;
}
