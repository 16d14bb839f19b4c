import type { RepairReport } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatDuration, formatTime, printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";
import { describeDamage } from "./verify-repository.ts";

export const repairRepository: CommandDefinition = {
  path: "repository repair",
  summary: "find other copies of lost data, and mark what has none",
  description:
    "Looks for the chunks that verification found damaged or missing in all other packs and writes down where the same bytes are; nothing that is there " +
    "is changed or removed. What is found nowhere is marked as lost: the next backup stores it again if the source still has it, and a repair after " +
    "that heals older points, too. Points that stay damaged are exit code 8; `image restore --despite-damage` restores the rest of them.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--from <url>",
      summary: "take what is nowhere else from this copy of the repository, made by other means",
    },
    { flags: "--dry-run", summary: "say what would be repaired; write nothing" },
    {
      flags: "--read-all",
      summary: "read all chunks first, instead of relying on what `repository verify` found",
    },
    ...storeLimitOptions,
  ],
  examples: [
    {
      command: "holdfast repository repair /srv/backup --dry-run",
      explanation: "After `holdfast repository verify` named damage.",
    },
    {
      command: "holdfast repository repair s3://backups/lab --json",
      explanation: "The last line has the report.",
    },
    {
      command: "holdfast repository repair s3://backups/lab --from /mnt/replica",
      explanation: "With a replica of the bucket.",
    },
  ],
  run: async (context, input) => {
    const from = input.text("from");
    const request = {
      kind: "repository-repair" as const,
      url: repositoryUrl(input.argument("url")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readStoreLimits(input),
      ...(from === undefined ? {} : { from: repositoryUrl(from) }),
      dryRun: input.flag("dryRun"),
      readAll: input.flag("readAll"),
    };
    const report = await runAsJob(context, request, {
      endState: (result) => (isDamaged(result) ? "damaged" : "succeeded"),
    });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    return isDamaged(report) ? exitCodes.verification.code : exitCodes.done.code;
  },
};

function isDamaged(report: RepairReport): boolean {
  return report.damagedPoints.length + report.damagedObjects.length > 0;
}

function describeReport(report: RepairReport): string {
  const { isDryRun, points, recordsBad, recordsFound, relocations, seconds } = report;
  const lines = report.healedPoints.map(
    ({ pointId, name, takenAt }) =>
      `HEALED   ${pointId} (${name}, ${formatTime(takenAt)}) can be restored in full again`,
  );
  for (const name of report.putBack) lines.push(`BACK     ${name} is in the copy`);
  lines.push(...describeDamage(report));
  for (const { object, reason } of report.damagedObjects)
    lines.push(`OBJECT   ${object}: ${reason}`);
  const wrote = isDryRun
    ? "nothing was written (dry run)"
    : `${relocations.length} relocations were written`;
  lines.push(
    `${points} points, ${recordsBad} parts of them were not where they should be, ${recordsFound} found elsewhere; ` +
      `${wrote}, ${formatDuration(seconds)}`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
