import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import { parseWholeNumber } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatTime } from "../render/format.ts";
import { renderTable } from "../render/table.ts";
import { repositoryUrl } from "../repository-url.ts";
import { collectOptions, printCollected, readCollectOptions } from "./collect-repository.ts";
import { runAsJob } from "./run-as-job.ts";

const rules = ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const;

const keepOptions: readonly OptionDefinition[] = rules.map((rule) => ({
  flags: `--keep-${rule} <count>`,
  summary:
    rule === "last"
      ? "keep the newest so many of each name"
      : `keep the newest of each of so many ${rule === "daily" ? "days" : `${rule.slice(0, -2)}s`}`,
}));

export const forgetPoints: CommandDefinition = {
  path: "image forget",
  summary: "remove recovery points, and what only they need",
  description:
    "The points that are given, or of each name all that no --keep rule keeps. The last point of a name stays unless --last-too is given. A point that is " +
    "being read or built upon stays until the next time. Where a control plane uses the repository, delete its points there: it would still list them.",
  arguments: [
    {
      name: "points",
      summary:
        "ids of recovery points, separated by commas; or the name of a root object that does not open",
      optional: true,
    },
  ],
  options: [
    { flags: "--repository <url>", summary: "a directory or s3://bucket/prefix", required: true },
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    { flags: "--name <name>", summary: "apply the rules to this name only" },
    ...keepOptions,
    { flags: "--last-too", summary: "also the last point of a name" },
    ...collectOptions,
  ],
  examples: [
    {
      command: "holdfast image forget 0mhq3z5k1-4t7v2c9x8b1d --repository /srv/backup --dry-run",
      explanation: "What that would free.",
    },
    {
      command:
        "holdfast image forget --repository s3://backups/lab --keep-daily 7 --keep-weekly 4 --keep-monthly 12",
      explanation: "Of each name; the newest point always stays.",
    },
  ],
  run: async (context, input) => {
    const name = input.text("name");
    const retention = readRules(input);
    const points = readPoints(input);
    if (points.length > 0 === (retention !== undefined)) {
      throw new Failure("input.invalid", { message: "give either points, or --keep rules" });
    }
    const request = {
      kind: "image-forget" as const,
      url: repositoryUrl(input.text("repository") ?? ""),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      points,
      lastToo: input.flag("lastToo"),
      ...(retention === undefined ? {} : { retention }),
      ...(name === undefined ? {} : { name }),
      ...readCollectOptions(input),
    };
    const report = await runAsJob(context, request, {
      endState: ({ collected }) => collected.state,
    });
    if (!context.settings.json) {
      const rows = report.points.map((point) => [
        point.pointId,
        point.name,
        formatTime(point.takenAt),
        point.keptBy.join(", ") || "goes",
      ]);
      const columns = ["POINT", "NAME", "TAKEN", "KEPT BY"].map((title) => ({ title }));
      context.stdout.write(renderTable({ columns, rows }, { forPeople: true }));
    }
    return printCollected(context, report.collected);
  },
};

function readPoints(input: CommandInput): string[] {
  return (input.argumentOrNone("points") ?? "")
    .split(",")
    .map((text) => text.trim())
    .filter((text) => text !== "");
}

/** A rule that is not given keeps nothing. */
function readRules(input: CommandInput) {
  const given = rules.map((rule) => {
    const option = `keep${rule.charAt(0).toUpperCase()}${rule.slice(1)}`;
    const text = input.text(option);
    const range = { min: 0, max: 10_000 };
    return [
      rule,
      text === undefined ? undefined : parseWholeNumber(`--keep-${rule}`, text, range),
    ] as const;
  });
  if (given.every(([, count]) => count === undefined)) return undefined;
  if (given.every(([, count]) => (count ?? 0) === 0)) {
    throw new Failure("input.invalid", {
      message:
        "all --keep rules are 0: nothing but the newest point of each name would stay; for that say --keep-last 1",
    });
  }
  const counts = new Map(given);
  return {
    last: counts.get("last") ?? 0,
    hourly: counts.get("hourly") ?? 0,
    daily: counts.get("daily") ?? 0,
    weekly: counts.get("weekly") ?? 0,
    monthly: counts.get("monthly") ?? 0,
    yearly: counts.get("yearly") ?? 0,
  };
}
