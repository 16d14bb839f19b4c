import type { RepairReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Repository } from "@holdfast/shared/repository/repository";
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
  const copy = await openCopy(context, request, repository);
  const run = (session: Session | undefined, signal: AbortSignal): Promise<RepairReport> =>
    repairRepository({
      repository,
      session,
      readAll: request.readAll,
      ...(copy === undefined ? {} : { copy }),
      onProgress: context.reportProgress("recovery points"),
      onSearch: context.reportProgress("packs searched"),
      signal,
      logger,
    });
  if (request.dryRun) return await run(undefined, context.signal);
  const held = { kind: "maintenance", holder: standaloneHolder(), pins: [] } as const;
  return await withSession({ ...held, repository, clock, logger, signal: context.signal }, run);
}

/** Fails with `input.invalid` for another repository: its chunks have other names. */
async function openCopy(
  context: StandaloneContext,
  { from: url, passphrase }: Request<"repository-repair">,
  { repositoryId }: Repository,
): Promise<Repository | undefined> {
  if (url === undefined) return undefined;
  const copy = await context.open({ url, passphrase });
  if (copy.repositoryId === repositoryId) return copy;
  throw new Failure("input.invalid", {
    message: `${url} is no copy of this repository: it is repository ${copy.repositoryId}, not ${repositoryId}`,
  });
}
