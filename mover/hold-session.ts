import { hostname } from "node:os";
import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { SessionKind } from "@holdfast/shared/repository/session/session-record";
import {
  renewIntervalMs,
  type Session,
  standaloneSilenceSeconds,
} from "@holdfast/shared/repository/session/sessions";

/** Who this process is, for people. */
export function standaloneHolder(): string {
  return `${hostname()}, process ${process.pid}`;
}

export type HeldSession = {
  readonly kind: SessionKind;
  /** Who holds it, for people. */
  readonly holder: string;
  /** Roots that it builds on or reads. */
  readonly pins: readonly string[];
  readonly repository: Repository;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

/**
 * Does work in a session of its own, which shows signs of life meanwhile and is ended in the end; the work ends it by its commit where it makes a
 * point. The work's signal aborts with `session.ended` when the session was taken for dead.
 */
export async function withSession<Result>(
  o: HeldSession,
  work: (session: Session, signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const session = await begin(o);
  return await hold(o, session, work);
}

/**
 * The same for reading, which must also be possible where nothing may be written: then the work goes on without a session, and `onNoSession` hears
 * why. Without one, what is read may be removed by a collection that began before.
 */
export async function withReadSession<Result>(
  o: HeldSession & { readonly onNoSession?: (message: string) => void },
  work: (session: Session | undefined, signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  let session: Session;
  try {
    session = await begin(o);
  } catch (error) {
    if (o.signal.aborted) throw error;
    const message = error instanceof Error ? error.message : String(error);
    o.logger.warn("reading without a session", { reason: message });
    o.onNoSession?.(
      `nothing can be written to ${o.repository.store.url}, so a collection may not know that it is read from: ${message}`,
    );
    return await work(undefined, o.signal);
  }
  return await hold(o, session, work);
}

function begin({ repository, kind, holder, pins, signal }: HeldSession): Promise<Session> {
  const silenceSeconds = standaloneSilenceSeconds;
  return repository.sessions.begin({ kind, holder, pins, silenceSeconds }, { signal });
}

async function hold<Result>(
  o: HeldSession,
  session: Session,
  work: (session: Session, signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const over = new AbortController();
  const lost = new AbortController();
  const renewing = renewUntil(o, session, over.signal, (failure) => lost.abort(failure));
  try {
    return await work(session, AbortSignal.any([o.signal, lost.signal]));
  } finally {
    over.abort();
    await renewing;
    // Not under the caller's signal: also a cancelled work ends its session.
    await session.abort().catch((error: unknown) =>
      o.logger.warn("session not ended; a collection ends it after its silence", {
        sessionId: session.sessionId,
        reason: String(error),
      }),
    );
  }
}

async function renewUntil(
  { clock, logger }: HeldSession,
  session: Session,
  over: AbortSignal,
  onLost: (failure: Failure) => void,
): Promise<void> {
  for (;;) {
    try {
      await clock.sleep(renewIntervalMs, over);
    } catch {
      return;
    }
    try {
      await session.renew({ signal: over });
    } catch (error) {
      if (over.aborted) return;
      if (isFailure(error, "session.ended")) return onLost(error);
      // The next one comes soon enough.
      logger.warn("session not renewed", { reason: String(error) });
    }
  }
}
