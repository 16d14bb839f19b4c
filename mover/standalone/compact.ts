import { hostname } from "node:os";
import type { CompactReport } from "@holdfast/shared/contracts/standalone";
import { type CompactProgress, compact } from "@holdfast/shared/repository/maintenance/compact";
import { standaloneHolder } from "../hold-session.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** People hear at most this often how far it is. */
const noteMs = 5000;

export async function compactRepository(
  context: StandaloneContext,
  request: Request<"repository-compact">,
): Promise<CompactReport> {
  const { clock, logger, signal } = context;
  const { share, reseal, limitBytes, dryRun, waitSeconds, allowShare } = request;
  let notedMs = clock.now();
  const onProgress = (progress: CompactProgress): void => {
    if (clock.now() - notedMs < noteMs) return;
    notedMs = clock.now();
    context.emit({ type: "note", message: describe(progress) });
  };
  const report = await compact({
    repository: await context.open(request),
    share,
    reseal,
    limitBytes,
    isDryRun: dryRun,
    waitMs: waitSeconds * 1000,
    allowShare,
    holder: `compaction, ${standaloneHolder()}`,
    observer: hostname(),
    onProgress,
    logger,
    signal,
  });
  for (const { name, reason } of report.left.damaged) {
    context.emit({ type: "warning", message: `${name} stays as it is: ${reason}` });
  }
  return {
    ...report,
    index: { ...report.index, unreadable: [...report.index.unreadable] },
    left: {
      ...report.left,
      damaged: [...report.left.damaged],
      locked: [...report.left.locked],
    },
    waitingFor: [...report.waitingFor],
    fenced: report.fenced.map((its) => ({ ...its, adopted: [...its.adopted] })),
  };
}

function describe({ stage, done, total }: CompactProgress): string {
  switch (stage) {
    case "listing":
      return `Listing: ${done} objects`;
    case "marking":
      return `Reading what points need: ${done} disks`;
    case "choosing":
      return "Reading which records of half-empty packs points need";
    case "waiting":
      return `Waiting for ${done} sessions`;
    case "moving":
      return `Moving: ${done} of ${total ?? "?"} packs`;
    case "removing":
      return `Removing: ${done} packs`;
    default:
      return stage satisfies never;
  }
}
