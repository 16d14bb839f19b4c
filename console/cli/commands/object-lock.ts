import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { printFields } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

const daysMax = 3650;
const passphraseOption = {
  flags: "--passphrase-file <file>",
  summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
};

export const extendRepositoryLocks: CommandDefinition = {
  path: "repository extend-locks",
  summary: "keep what recovery points need locked by the bucket's Object Lock",
  description:
    "What a point needs may be much older than the point, as its data was stored once. Everything that a point needs now is locked for the " +
    "repository's number of days from now on, in steps of ten days, so that each object is extended at most once in ten days. Run it at least as often. What no point " +
    "needs is left to run out. Costs a request for each object, and another one for each that is extended. Needs a credential that may change retention: not a mover's.",
  arguments: [{ name: "url", summary: "s3://bucket/prefix" }],
  options: [
    passphraseOption,
    { flags: "--days <days>", summary: "another number of days than the repository's own, as 60d" },
    { flags: "--dry-run", summary: "only count" },
  ],
  examples: [
    {
      command: "holdfast repository extend-locks s3://backups/lab --passphrase-file key",
      explanation: "Once a day by cron.",
    },
  ],
  run: async (context, input) => {
    const text = input.text("days");
    const request = {
      kind: "repository-extend-locks" as const,
      url: repositoryUrl(input.argument("url")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      dryRun: input.flag("dryRun"),
      ...(text === undefined ? {} : { days: parseDays("--days", text) }),
    };
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const report = await context.mover.run(request, { signal: stop.signal });
    printFields(context, report, [
      ["points", `${report.points}`],
      ["objects they need", `${report.objects}`],
      [request.dryRun ? "to be extended" : "extended", `${report.extended}`],
      ["locked until", report.until],
    ]);
    return exitCodes.done.code;
  },
};

export const holdImage: CommandDefinition = {
  path: "image hold",
  summary: "put a recovery point under the bucket's legal hold, or end that",
  description:
    "A legal hold has no date: everything that the point needs stays until it is ended, whatever retention and policies say. Objects that " +
    "other points share are held, too. Needs a bucket with Object Lock and a credential that may set legal holds.",
  arguments: [
    { name: "point", summary: "id of the recovery point" },
    { name: "state", summary: "on or off" },
  ],
  options: [{ flags: "--repository <url>", summary: "s3://bucket/prefix" }, passphraseOption],
  examples: [
    {
      command: "holdfast image hold 0mhq3z5k1-4t7v2c9x8b1d on --repository s3://backups/lab",
      explanation: "Until further notice.",
    },
  ],
  run: async (context, input) => {
    const state = input.argument("state");
    if (state !== "on" && state !== "off") {
      throw new Failure("input.invalid", {
        message: `${JSON.stringify(state)} is neither on nor off`,
      });
    }
    const request = {
      kind: "image-hold" as const,
      url: repositoryUrl(input.text("repository") ?? ""),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      pointId: input.argument("point"),
      isOn: state === "on",
    };
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const done = await context.mover.run(request, { signal: stop.signal });
    printFields(context, done, [
      ["point", done.pointId],
      ["legal hold", state],
      ["objects", `${done.objects}`],
    ]);
    return exitCodes.done.code;
  },
};

/** From `--lock` and `--lock-mode` of `repository init`. */
export function parseLock(
  days: string | undefined,
  mode: string | undefined,
): { readonly mode: "compliance" | "governance"; readonly days: number } | undefined {
  if (days === undefined && mode === undefined) return undefined;
  if (days === undefined) {
    throw new Failure("input.invalid", { message: "--lock-mode needs --lock with the days" });
  }
  if (mode !== undefined && mode !== "compliance" && mode !== "governance") {
    throw new Failure("input.invalid", {
      message: `--lock-mode ${JSON.stringify(mode)} is neither compliance nor governance`,
    });
  }
  return { mode: mode ?? "compliance", days: parseDays("--lock", days) };
}

function parseDays(option: string, text: string): number {
  const days = Number(/^(\d{1,5})d?$/.exec(text.trim())?.[1] ?? Number.NaN);
  if (days >= 1 && days <= daysMax) return days;
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text)} is not a number of days from 1 to ${daysMax}; write 30d`,
  });
}
