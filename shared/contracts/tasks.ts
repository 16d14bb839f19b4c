import { z } from "zod";

/**
 * A message on a site's queue. It names the work only: what the work needs to know is in the catalog,
 * so that a message is small and carries no secret. Answered with the Step Functions task token.
 */
export const TaskMessage = z.object({
  v: z.literal(1),
  taskToken: z.string().min(1).max(2048),
  jobId: z.string(),
  task: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("inspect") }),
    z.strictObject({ kind: z.literal("snapshot") }),
    z.strictObject({ kind: z.literal("export-metadata") }),
    z.strictObject({ kind: z.literal("transfer-disk"), diskKey: z.string() }),
    z.strictObject({ kind: z.literal("write-recovery-point") }),
    z.strictObject({ kind: z.literal("release"), outcome: z.enum(["committed", "failed"]) }),
    z.strictObject({ kind: z.literal("prepare-restore") }),
    z.strictObject({ kind: z.literal("restore-disk"), diskKey: z.string() }),
    z.strictObject({ kind: z.literal("finish-restore") }),
    z.strictObject({ kind: z.literal("abandon-restore") }),
  ]),
});
export type TaskMessage = z.infer<typeof TaskMessage>;
export type Task = TaskMessage["task"];

/** The names under which a mover reports failures to Step Functions; the state machines retry the first and catch all. */
export const taskErrors = {
  retryable: "HoldfastRetryable",
  failed: "HoldfastFailed",
  cancelled: "HoldfastCancelled",
} as const;
