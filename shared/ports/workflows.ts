import type { Job } from "../contracts/catalog-items.ts";

/** What carries a job through its stages (Step Functions): one execution a job, named by the job's id. */
export interface Workflows {
  /** Same job again: no change. Fails with `aws.failed`; whether it started is then unknown. */
  start(job: Pick<Job, "kind" | "jobId">, input: WorkflowInput): Promise<void>;
  /**
   * Cleans up after a job whose execution ended without ending the job, and ends it: one more execution, named by the job's id.
   * Same job again: no change.
   */
  recover(job: Pick<Job, "kind" | "jobId">, input: RecoveryInput): Promise<void>;
  /** `orphaned`: its execution has ended and no recovery was started. `running` and `ended` count the recovery in. */
  state(job: Pick<Job, "kind" | "jobId">): Promise<WorkflowState>;
}

export type WorkflowState = "running" | "orphaned" | "ended" | "absent";

/** `error` is what ended the job's own execution, in the form of a state machine's Catch. */
export type RecoveryInput = WorkflowInput & {
  readonly error: { readonly Error: string; readonly Cause: string };
};

export type WorkflowInput = { readonly jobId: string; readonly siteQueueUrl: string };
