import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { standaloneHolder, withReadSession } from "../hold-session.ts";
import { verifyRepository } from "../pipeline/verify-repository.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function verify(
  context: StandaloneContext,
  request: Request<"repository-verify">,
): Promise<VerifyReport> {
  const { clock, logger } = context;
  const repository = await context.open(request);
  const run = (session: Session | undefined, signal: AbortSignal): Promise<VerifyReport> =>
    verifyRepository({
      repository,
      share: request.share,
      ...(request.pointId === undefined ? {} : { pointId: request.pointId }),
      whole: {
        ...(request.everySeconds === undefined ? {} : { everyMs: request.everySeconds * 1000 }),
        ...(request.limitBytes === undefined ? {} : { bytesMax: request.limitBytes }),
        ...(request.limitSeconds === undefined ? {} : { durationMs: request.limitSeconds * 1000 }),
        restart: request.restart,
      },
      session,
      onProgress: context.reportProgress("recovery points"),
      onPackProgress: context.reportProgress("stored bytes"),
      signal,
      logger,
    });
  const { signal } = context;
  if (request.readOnly) return await run(undefined, signal);
  const onNoSession = (message: string): void => context.emit({ type: "warning", message });
  const held = { kind: "verify", holder: standaloneHolder(), pins: [] } as const;
  return await withReadSession({ ...held, repository, clock, logger, signal, onNoSession }, run);
}
