import type { StandaloneRequest, StandaloneResult } from "@holdfast/shared/contracts/standalone";
import { newSortableId } from "@holdfast/shared/domain/ids";
import type { Context } from "../context.ts";
import { printable } from "../render/format.ts";
import { createReporter, note } from "../report.ts";

const stages = {
  "image-backup": "backup",
  "image-restore": "restore",
  "repository-verify": "verify",
  "repository-repair": "repair",
  "repository-collect": "collect",
  "repository-compact": "compact",
  "image-forget": "collect",
  "repository-rebuild": "rebuild",
  "repository-copy": "copy",
  "repository-replicate": "copy",
} as const;
type LongKind = keyof typeof stages;

/**
 * Long work that this command runs itself. It is told like a job of the control plane, under an id of its own;
 * here Ctrl-C does cancel: nobody else would go on with it. What a cancelled backup stored is found again by the next.
 */
export async function runAsJob<Kind extends LongKind>(
  context: Context,
  request: StandaloneRequest & { readonly kind: Kind },
  options: { readonly endState?: (result: StandaloneResult<Kind>) => string } = {},
): Promise<StandaloneResult<Kind>> {
  const job = newSortableId(context.clock.now(), context.random);
  const reporter = createReporter(context);
  const stop = new AbortController();
  using _interrupt = context.onInterrupt(() => stop.abort());
  const stage = stages[request.kind];
  const name = "name" in request ? request.name : undefined;
  reporter.started(job);
  reporter.stage(job, stage, "started");
  try {
    const result = await context.mover.run<Kind>(request, {
      signal: stop.signal,
      onProgress: ({ disk, bytesDone, bytesTotal }) =>
        reporter.progress([
          {
            job,
            key: disk,
            disk: name ?? disk,
            stage,
            bytesDone,
            bytesTotal,
            isFinished: bytesDone === bytesTotal,
          },
        ]),
      onNote: (message) => note(context, printable(message)),
      onWarning: (message) => reporter.warning(job, message),
    });
    reporter.end();
    reporter.stage(job, stage, "finished");
    reporter.finished(job, {
      state: options.endState?.(result) ?? "succeeded",
      result: { ...result },
    });
    return result;
  } catch (error) {
    reporter.end();
    reporter.error(job, error);
    reporter.finished(job, { state: stop.signal.aborted ? "cancelled" : "failed" });
    throw error;
  }
}
