import type { RepairReport } from "@holdfast/shared/contracts/standalone";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { standaloneHolder, withSession } from "../hold-session.ts";
import { repairRepository } from "../pipeline/repair-repository.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function repair(
  context: StandaloneContext,
  request: Request<"repository-repair">,
): Promise<RepairReport> {
  const { clock, logger } = context;
  const repository = await context.open(request);
  const run = (session: Session | undefined, signal: AbortSignal): Promise<RepairReport> =>
    repairRepository({
      repository,
      session,
      readAll: request.readAll,
      onProgress: context.reportProgress("recovery points"),
      onSearch: context.reportProgress("packs searched"),
      signal,
      logger,
    });
  if (request.dryRun) return await run(undefined, context.signal);
  const held = { kind: "maintenance", holder: standaloneHolder(), pins: [] } as const;
  return await withSession({ ...held, repository, clock, logger, signal: context.signal }, run);
}
