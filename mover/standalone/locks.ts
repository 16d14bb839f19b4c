import type { LocksReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import {
  extendLocks as extend,
  holdPoint as hold,
} from "@holdfast/shared/repository/maintenance/locks";
import { findRoot } from "./find-point.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Keeps what the points need locked. */
export async function extendLocks(
  context: StandaloneContext,
  request: Request<"repository-extend-locks">,
): Promise<LocksReport> {
  const repository = await context.open(request);
  const { signal, clock } = context;
  const startedMs = clock.now();
  if (repository.lock === undefined) {
    throw new Failure("unsupported", {
      message: `${request.url} was created without --lock: nothing in it is locked`,
    });
  }
  const { mode, days } = repository.lock;
  const onDamaged = (rootKey: string, { message }: Failure): void =>
    context.emit({ type: "warning", message: `${rootKey} is damaged: ${message}` });
  const lock = { mode, days: request.days ?? days };
  const { untilMs, ...counted } = await extend(repository, {
    lock,
    dryRun: request.dryRun,
    onDamaged,
    signal,
  });
  const seconds = (clock.now() - startedMs) / 1000;
  return { ...counted, until: new Date(untilMs).toISOString(), seconds };
}

/** Legal hold of one point, on or off. */
export async function holdPoint(
  context: StandaloneContext,
  request: Request<"image-hold">,
): Promise<{ readonly pointId: string; readonly isOn: boolean; readonly objects: number }> {
  const { signal } = context;
  const { pointId, isOn } = request;
  const repository = await context.open(request);
  const rootKey = await findRoot(context, repository, pointId);
  return { pointId, isOn, objects: await hold(repository, { rootKey, isOn, signal }) };
}
