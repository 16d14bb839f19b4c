import { z } from "zod";

/**
 * What happens in a job, one vocabulary for the CLI's `--json` lines, the event bus and webhooks.
 * `v` changes when a reader would have to; new optional fields may come at any time.
 */
export const jobEventTypes = [
  "job.started",
  "stage.started",
  "stage.progress",
  "stage.finished",
  "warning",
  "error",
  "job.finished",
] as const;

export const JobEvent = z.object({
  v: z.literal(1),
  type: z.enum(jobEventTypes),
  /** ISO 8601, UTC. */
  time: z.string(),
  job: z.string(),
  vm: z.string().optional(),
  stage: z.string().optional(),
  disk: z.string().optional(),
  bytesDone: z.int().min(0).optional(),
  bytesTotal: z.int().min(0).optional(),
  /** Bytes a second. */
  rate: z.number().min(0).optional(),
  etaSeconds: z.number().min(0).optional(),
  /** With `warning` and `error`. */
  message: z.string().optional(),
  /** With `error`: the failure's id, `HF-NOT-FOUND`. */
  id: z.string().optional(),
  /** With `job.finished`. */
  state: z.string().optional(),
  /** With `job.finished`: what came of it; its fields depend on the kind of job. */
  result: z.record(z.string(), z.unknown()).optional(),
});
export type JobEvent = z.infer<typeof JobEvent>;

/** What the CLI writes to stderr under `--json` when a command fails; the last line there. */
export const ErrorDocument = z.object({
  v: z.literal(1),
  type: z.literal("error"),
  id: z.string(),
  code: z.string(),
  message: z.string(),
  causes: z.array(z.string()),
  advice: z.string(),
  exitCode: z.int(),
});
export type ErrorDocument = z.infer<typeof ErrorDocument>;
