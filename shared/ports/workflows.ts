import type { Job } from "../contracts/catalog-items.ts";

/** What carries a job through its stages (Step Functions): one execution a job, named by the job's id. */
export interface Workflows {
  /** Same job again: no change. Fails with `aws.failed`; whether it started is then unknown. */
  start(job: Pick<Job, "kind" | "jobId">, input: WorkflowInput): Promise<void>;
  state(job: Pick<Job, "kind" | "jobId">): Promise<"running" | "ended" | "absent">;
}

export type WorkflowInput = { readonly jobId: string; readonly siteQueueUrl: string };
