import type { Job } from "@holdfast/shared/contracts/catalog-items";
import type { ApiClient } from "../api-client.ts";
import type { Context } from "../context.ts";
import { type ExitCode, exitCodes } from "../exit-codes.ts";
import { printResult } from "../report.ts";
import { watchJobs } from "../watch-jobs.ts";

/** A key under which a call that starts jobs may be repeated without starting a second one. */
export function newIdempotencyKey(context: Context): string {
  return Buffer.from(context.random(16)).toString("hex");
}

/** What follows every accepted job: watch it, or with --no-wait say how to. */
export async function followJobs(
  context: Context,
  api: ApiClient,
  jobs: readonly Job[],
): Promise<ExitCode> {
  if (context.settings.wait) {
    return await watchJobs(
      context,
      api,
      jobs.map(({ jobId }) => jobId),
    );
  }
  printResult(context, jobs.length === 1 ? { job: jobs[0] } : { jobs }, (forPeople) =>
    jobs
      .map(({ jobId }) =>
        forPeople ? `Started; watch it with: holdfast job watch ${jobId}\n` : `${jobId}\n`,
      )
      .join(""),
  );
  return exitCodes.done.code;
}
