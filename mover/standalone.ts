/**
 * The mover without a control plane: started by the CLI as a process, it does the one request that it reads from
 * stdin and answers with JSON lines on stdout (shared/contracts/standalone.ts). It ends when it is told to
 * (SIGTERM) and when the CLI that started it is gone (stdin ends): then nothing is committed.
 */
import { createInterface } from "node:readline";
import {
  type StandaloneLine,
  StandaloneRequest,
  standaloneResults,
} from "@holdfast/shared/contracts/standalone";
import { Failure, toFailureRecord } from "@holdfast/shared/domain/failure";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { createJsonLogger, type LogFields } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { createOwnLimits, followLimitsFile } from "./limits/own-limits.ts";
import { openRepositoryAt } from "./open-repository-at.ts";
import type { ReportProgress, StandaloneContext } from "./standalone/standalone-context.ts";

const progressMs = 100;

const logger = createJsonLogger((line) => process.stderr.write(`${line}\n`));
const stop = new AbortController();
const cancel = (): void => stop.abort(new Failure("cancelled", { message: "cancelled" }));
process.on("SIGTERM", cancel);
// A terminal sends Ctrl-C to the CLI as well, and the CLI decides.
process.on("SIGINT", () => undefined);

const own = createOwnLimits(clock);
/** Aborts when the request was answered. */
const over = new AbortController();

const context: StandaloneContext = {
  signal: stop.signal,
  clock,
  random,
  logger,
  emit,
  reportProgress,
  limits: own,
  open: ({ url, passphrase }) =>
    openRepositoryAt(url, { passphrase, clock, random, logger, throttles: own.store }),
};

const input = createInterface({ input: process.stdin });
input.once("line", (line) => void answer(line));
input.once("close", cancel);

async function answer(line: string): Promise<void> {
  try {
    const request = StandaloneRequest.parse(JSON.parse(line));
    await applyLimits(request);
    const result = await perform(request);
    emit({ type: "result", result: standaloneResults[request.kind].parse(result) });
  } catch (error) {
    const failure = toFailureRecord(stop.signal.aborted ? stop.signal.reason : error);
    emit({ type: "failed", failure: { ...failure, causes: [...failure.causes] } });
    process.exitCode = 1;
  } finally {
    over.abort();
    input.off("close", cancel);
    input.close();
    process.stdin.destroy();
  }
}

async function applyLimits(request: ReturnType<typeof StandaloneRequest.parse>): Promise<void> {
  if (!("limits" in request) || request.limits === undefined) return;
  const { file: path, ...rates } = request.limits;
  own.set(rates);
  if (path === undefined) return;
  // Nobody reads this process's log while the command runs.
  const warn = (_event: string, fields?: LogFields): void =>
    emit({ type: "warning", message: `limits stay as they were: ${String(fields?.["reason"])}` });
  const { signal } = over;
  await followLimitsFile({ path, limits: own, clock, logger: { ...logger, warn }, signal });
}

function emit(line: StandaloneLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Each work's code is loaded when it is asked for: a third of the start's time is loading. */
async function perform(request: ReturnType<typeof StandaloneRequest.parse>): Promise<unknown> {
  switch (request.kind) {
    case "repository-init":
      return await (await import("./standalone/init-repository.ts")).initRepository(
        context,
        request,
      );
    case "image-backup":
      return await (await import("./standalone/back-up-image.ts")).backUpImage(context, request);
    case "image-points":
      return await (await import("./standalone/describe-points.ts")).listImagePoints(
        context,
        request,
      );
    case "image-restore":
      return await (await import("./standalone/restore-image.ts")).restoreImage(context, request);
    case "image-metadata":
      return await (await import("./standalone/describe-points.ts")).readMetadata(context, request);
    case "point-serve":
      return await (await import("./standalone/serve.ts")).serve(context, request);
    case "repository-doctor":
      return await (await import("./standalone/doctor.ts")).doctor(context, request);
    case "repository-recover":
      return await (await import("./standalone/recover.ts")).recover(context, request);
    case "repository-extend-locks":
      return await (await import("./standalone/locks.ts")).extendLocks(context, request);
    case "image-hold":
      return await (await import("./standalone/locks.ts")).holdPoint(context, request);
    case "repository-verify":
      return await (await import("./standalone/verify.ts")).verify(context, request);
    case "repository-repair":
      return await (await import("./standalone/repair.ts")).repair(context, request);
    case "repository-collect":
      return await (await import("./standalone/collect.ts")).collectRepository(context, request);
    case "repository-compact":
      return await (await import("./standalone/compact.ts")).compactRepository(context, request);
    case "repository-keys":
      return await (await import("./standalone/keys.ts")).manageKeys(context, request);
    case "repository-stats":
      return await (await import("./standalone/stats.ts")).stats(context, request);
    case "repository-replicate":
      return await (await import("./standalone/replicate.ts")).replicate(context, request);
    case "repository-catalog":
      return await (await import("./standalone/catalog.ts")).readCatalog(context, request);
    case "repository-rebuild":
      return await (await import("./standalone/rebuild.ts")).rebuild(context, request);
    case "repository-copy":
      return await (await import("./standalone/copy.ts")).copy(context, request);
    case "image-forget":
      return await (await import("./standalone/forget.ts")).forgetPoints(context, request);
    case "fetch-host-keys": {
      const { signal } = stop;
      const { fetchHostKeys } = await import("./transport/ssh/fetch-host-keys.ts");
      const hostKeys = await fetchHostKeys(request.host, request.port, { signal });
      return { hostKeys };
    }
    default:
      return request satisfies never;
  }
}

function reportProgress(disk: string): ReportProgress {
  let reportedMs = Number.NEGATIVE_INFINITY;
  return ({ bytesDone, bytesTotal }) => {
    const isLast = bytesDone === bytesTotal;
    if (!isLast && clock.now() - reportedMs < progressMs) return;
    reportedMs = clock.now();
    emit({ type: "progress", disk, bytesDone, bytesTotal });
  };
}
