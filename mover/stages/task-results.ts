import { Failure } from "@holdfast/shared/domain/failure";
import type { BackupSession, RestoreSession } from "@holdfast/shared/ports/driver";
import { z } from "zod";
import type { StageContext } from "./stage.ts";

/**
 * What stages leave for each other in the catalog. Sessions are written and read by movers only,
 * so their driver's part stays opaque here; the outer shape is checked.
 */
const SessionResult = z.object({
  session: z.looseObject({ jobId: z.string(), disks: z.array(z.looseObject({ key: z.string() })) }),
});

export const MetadataResult = z.object({ metadataKey: z.string() });

export const TransferResult = z.object({
  recordKey: z.string(),
  mode: z.enum(["full", "incremental"]),
  reason: z.string(),
  bytesRead: z.int(),
  bytesNew: z.int(),
  bytesStored: z.int(),
});
export type TransferResult = z.infer<typeof TransferResult>;

export async function backupSession(context: StageContext): Promise<BackupSession> {
  const { session } = await readResult(context, "snapshot", SessionResult);
  return session as unknown as BackupSession;
}

export async function restoreSession(context: StageContext): Promise<RestoreSession> {
  const { session } = await readResult(context, "prepare-restore", SessionResult);
  return session as unknown as RestoreSession;
}

/** The result of an earlier task of this job. Fails with `internal` when it isn't there: the state machine orders the stages. */
export async function readResult<T>(
  context: StageContext,
  taskName: string,
  schema: z.ZodType<T>,
): Promise<T> {
  const result = await context.catalog.getTaskResult(context.job.jobId, taskName);
  const parsed = schema.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new Failure("internal", {
    message: `job ${context.job.jobId}: the result of its stage "${taskName}" is missing or malformed`,
    cause: parsed.error,
  });
}
