import type { CopyReport, ReplicaReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition, CommandInput } from "../command.ts";
import type { Context } from "../context.ts";
import { type ExitCode, exitCodes } from "../exit-codes.ts";
import { parseTimeMs } from "../parse-values.ts";
import { readPassphrase, readSecretFile } from "../read-secret.ts";
import { formatBytes, formatDuration, formatTime, printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";

export const copyRepository: CommandDefinition = {
  path: "repository copy",
  summary: "copy recovery points to a second repository",
  description:
    "The second repository has keys, a passphrase and settings of its own (`repository init` makes it), so the loss of one does not touch the other. " +
    "Only what it lacks is stored there; of a later point of the same VM only what changed is read. Points keep their ids, times and metadata. Those that " +
    "are there already are skipped, so a run that was cut off is repeated; each point is there in full or not at all. Backups, restores and collections " +
    "may run in both meanwhile. Points that the source cannot give in full are named, and are exit code 8. With --replica the target is an empty place at first and " +
    "opens with the source's passphrase; it is what `repository repair --from` takes. Nothing is ever removed from it.",
  arguments: [
    { name: "source", summary: "a directory or s3://bucket/prefix" },
    { name: "target", summary: "another repository, which exists" },
  ],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the source's passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--target-passphrase-file <file>",
      summary:
        "file with the target's passphrase (else HOLDFAST_TARGET_PASSPHRASE, else a question)",
    },
    {
      flags: "--point <id>",
      summary: "this recovery point (repeatable; default: all)",
      repeatable: true,
    },
    { flags: "--name <name>", summary: "only points of this VM or image" },
    { flags: "--since <time>", summary: "only points taken since, as 7d or 2026-11-01" },
    { flags: "--dry-run", summary: "only say what is missing there" },
    ...storeLimitOptions,
    {
      flags: "--replica",
      summary:
        "make the target the same repository with the same keys: object by object, all points",
    },
  ],
  examples: [
    {
      command:
        "holdfast repository copy /srv/backup s3://offsite/lab --passphrase-file key --target-passphrase-file offsite-key",
      explanation: "All that is missing; each night by cron.",
    },
    {
      command: "holdfast repository copy /srv/backup /mnt/usb/backup --name web --since 7d --json",
      explanation: "Last week's points of one VM; the last line has the report.",
    },
    {
      command: "holdfast repository copy s3://backups/lab /mnt/replica --replica",
      explanation: "The bucket as it is, on a disk.",
    },
  ],
  run: async (context, input) => {
    if (input.flag("replica")) return await replicate(context, input);
    const since = input.text("since");
    const name = input.text("name");
    const request = {
      kind: "repository-copy" as const,
      url: repositoryUrl(input.argument("source")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readStoreLimits(input),
      target: {
        url: repositoryUrl(input.argument("target")),
        passphrase: await readTargetPassphrase(context, input.text("targetPassphraseFile")),
      },
      points: [...input.list("point")],
      ...(since === undefined ? {} : { since: parseSince(since, context.clock.now()) }),
      dryRun: input.flag("dryRun"),
    };
    const report = await runAsJob(context, name === undefined ? request : { ...request, name }, {
      endState: (result) => (isWhole(result) ? "succeeded" : "damaged"),
    });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    return exitCodeFor(report);
  },
};

async function replicate(context: Context, input: CommandInput): Promise<ExitCode> {
  const isChoosing =
    input.list("point").length > 0 ||
    ["name", "since", "targetPassphraseFile"].some((its) => input.text(its) !== undefined);
  if (isChoosing || input.flag("dryRun")) {
    throw new Failure("input.invalid", {
      message:
        "a replica has all points and the source's keys: --point, --name, --since, --target-passphrase-file and --dry-run do not go with --replica",
    });
  }
  const request = {
    kind: "repository-replicate" as const,
    url: repositoryUrl(input.argument("source")),
    passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
    targetUrl: repositoryUrl(input.argument("target")),
  };
  const report = await runAsJob(context, request, {
    endState: ({ different }) => (different.length === 0 ? "succeeded" : "damaged"),
  });
  if (!context.settings.json) context.stdout.write(describeReplica(report));
  return report.different.length === 0 ? exitCodes.done.code : exitCodes.verification.code;
}

function describeReplica({ points, objects, bytes, present, different, seconds }: ReplicaReport) {
  const lines = different.map(
    (name) => `DIFFERS  ${name} has another size there; it was not touched`,
  );
  lines.push(
    `${points} points; ${objects} objects copied, ${formatBytes(bytes)}, ${present} were there; ${formatDuration(seconds)}.`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}

async function readTargetPassphrase(context: Context, file: string | undefined): Promise<string> {
  if (file !== undefined) return await readSecretFile("--target-passphrase-file", file);
  const fromEnvironment = context.environment["HOLDFAST_TARGET_PASSPHRASE"];
  if (fromEnvironment !== undefined && fromEnvironment !== "") return fromEnvironment;
  const instead = "--target-passphrase-file or HOLDFAST_TARGET_PASSPHRASE";
  const passphrase = await context.prompt.secret("Passphrase of the second repository", instead);
  if (passphrase !== "") return passphrase;
  throw new Failure("input.invalid", { message: "the passphrase is empty" });
}

/** A date or time, or how long ago. */
function parseSince(text: string, nowMs: number): string {
  if (!/^\d{4}-/.test(text)) return new Date(nowMs - parseTimeMs("--since", text)).toISOString();
  const time = new Date(text);
  if (!Number.isNaN(time.getTime())) return time.toISOString();
  throw new Failure("input.invalid", {
    message: `--since: ${JSON.stringify(text)} is no date and no time; write it as 2026-11-01, 2026-11-01T12:00:00Z or 7d`,
  });
}

const isWhole = ({ points, unreadable }: CopyReport): boolean =>
  unreadable === 0 && points.every(({ state }) => state !== "damaged");

function exitCodeFor(report: CopyReport): ExitCode {
  return isWhole(report) ? exitCodes.done.code : exitCodes.verification.code;
}

const shown: Readonly<Partial<Record<CopyReport["points"][number]["state"], string>>> = {
  missing: "MISSING ",
  damaged: "DAMAGED ",
  going: "GOING   ",
};

function describeReport(report: CopyReport): string {
  const lines: string[] = [];
  const counts = new Map<string, number>();
  for (const { pointId, name, takenAt, state, reason } of report.points) {
    counts.set(state, (counts.get(state) ?? 0) + 1);
    const word = shown[state];
    if (word === undefined) continue;
    const why = reason === undefined ? "" : `: ${reason}`;
    lines.push(`${word} ${pointId} (${name}, ${formatTime(takenAt)})${why}`);
  }
  const count = (state: string): number => counts.get(state) ?? 0;
  const { bytesRead, bytesNew, bytesStored, seconds } = report;
  lines.push(
    report.isDryRun
      ? `${count("missing")} of ${report.points.length} points are missing there. Nothing was changed.`
      : `${count("copied")} points copied, ${count("present")} were there; ${formatBytes(bytesRead)} read, ${formatBytes(bytesNew)} of them new there, ` +
          `${formatBytes(bytesStored)} stored; ${formatDuration(seconds)}.`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
