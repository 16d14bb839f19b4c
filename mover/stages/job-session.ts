import type { BackupJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Repository } from "@holdfast/shared/repository/repository";
import {
  jobSilenceSeconds,
  renewIntervalMs,
  type Session,
} from "@holdfast/shared/repository/session/sessions";
import type { StageContext } from "./stage.ts";

/** The backup job's session in the repository: begun by the first stage that writes into it. */
export async function beginJobSession(
  context: StageContext,
  job: BackupJob,
  repository: Repository,
): Promise<Session> {
  const parent = await parentOf(context, job);
  const session = await repository.sessions.begin(
    {
      kind: "backup",
      holder: `job ${job.jobId}`,
      pins: parent === undefined ? [] : [parent.rootKey],
      silenceSeconds: jobSilenceSeconds,
      sessionId: repositorySessionId(job),
    },
    { signal: context.signal },
  );
  renewMeanwhile(context, session);
  return session;
}

/** The same session in a later stage. Fails with `session.ended`; `alsoCommitted`: but not when an earlier attempt has made the point. */
export async function resumeJobSession(
  context: StageContext,
  job: BackupJob,
  repository: Repository,
  { alsoCommitted = false } = {},
): Promise<Session> {
  const session = await repository.sessions.resume(repositorySessionId(job), {
    signal: context.signal,
    alsoCommitted,
  });
  renewMeanwhile(context, session);
  return session;
}

/** The point that the job builds on, if the catalog still has it. */
export async function parentOf(
  { catalog }: StageContext,
  job: BackupJob,
): Promise<{ readonly pointId: string; readonly rootKey: string } | undefined> {
  if (job.previous === undefined) return undefined;
  const { pointId } = job.previous;
  try {
    const { rootKey } = await catalog.getPoint(pointId);
    return { pointId, rootKey };
  } catch (error) {
    if (isFailure(error, "not-found")) return undefined;
    throw error;
  }
}

function repositorySessionId({ jobId, repositorySessionId: sessionId }: BackupJob): string {
  if (sessionId !== undefined) return sessionId;
  throw new Failure("internal", {
    message: `job ${jobId} has no session in the repository: Begin did not run`,
  });
}

/** A renewal that fails for a moment is tried again with the next watch; one that says that the session has ended stops the stage. */
function renewMeanwhile({ clock, watch, logger, signal }: StageContext, session: Session): void {
  let renewedMs = clock.now();
  watch(async () => {
    if (clock.now() - renewedMs < renewIntervalMs) return;
    try {
      await session.renew({ signal });
      renewedMs = clock.now();
    } catch (error) {
      if (isFailure(error, "session.ended")) throw error;
      logger.warn("session not renewed", { reason: String(error) });
    }
  });
}
