import type { CopyReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { PointSummary } from "@holdfast/shared/repository/repository";
import { standaloneHolder } from "../hold-session.ts";
import { copyPoints } from "../pipeline/copy-points.ts";
import { throttledReader } from "../transport/throttled-disk.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

export async function copy(
  context: StandaloneContext,
  request: Request<"repository-copy">,
): Promise<CopyReport> {
  const { clock, logger, signal } = context;
  const source = await context.open(request);
  const target = await context.open(request.target);
  const found = new Set<string>();
  let unreadable = 0;
  const report = await copyPoints({
    source,
    target,
    isWanted: (point) => {
      const isWanted = matches(point, request);
      if (isWanted) found.add(point.pointId);
      return isWanted;
    },
    isDryRun: request.dryRun,
    holder: `copy, ${standaloneHolder()}`,
    clock,
    throttled: (reader) => throttledReader(reader, context.limits.disk),
    onProgress: context.reportProgress("recovery points"),
    onPoint: ({ pointId, name, takenAt, state, reason }) => {
      if (state === "copied") {
        context.emit({ type: "note", message: `Copied ${pointId} (${name}, ${takenAt})` });
      } else if (reason !== undefined) {
        context.emit({ type: "warning", message: `${pointId} (${name}): ${reason}` });
      }
    },
    onUnreadable: ({ key, failure }) => {
      unreadable += 1;
      context.emit({ type: "warning", message: `${key} cannot be read: ${failure.message}` });
    },
    onNoSession: (message) => context.emit({ type: "warning", message }),
    signal,
    logger,
  });
  const missing = request.points.filter((pointId) => !found.has(pointId));
  if (missing.length > 0) {
    throw new Failure("not-found", {
      message: `${source.store.url} has no recovery point ${missing.join(", ")}; \`holdfast image points\` lists them`,
    });
  }
  return { ...report, points: [...report.points], isDryRun: request.dryRun, unreadable };
}

function matches(
  { pointId, vmName, takenAt }: PointSummary,
  { points, name, since }: Request<"repository-copy">,
): boolean {
  return (
    (points.length === 0 || points.includes(pointId)) &&
    (name === undefined || name === vmName) &&
    (since === undefined || Date.parse(takenAt) >= Date.parse(since))
  );
}
