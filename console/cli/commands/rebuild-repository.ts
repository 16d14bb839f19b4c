import type { RebuildReport } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatDuration, printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";

export const rebuildRepository: CommandDefinition = {
  path: "repository rebuild",
  summary: "make the index anew from what the packs say that they hold",
  description:
    "The index says which chunks are stored already. When parts of it are lost or damaged, or when it has grown long, backups store again what is there; " +
    "restores never need it. Two small reads for each pack. Backups and restores may run meanwhile. Packs whose list of chunks does not open are named and left " +
    "out, and are exit code 8: `repository verify` says which points they belong to. For a control plane that was lost see `repository import`.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    { flags: "--dry-run", summary: "read everything, write nothing" },
    ...storeLimitOptions,
  ],
  examples: [
    {
      command: "holdfast repository rebuild /srv/backup",
      explanation: "After `holdfast repository verify` named objects of the index.",
    },
    {
      command: "holdfast repository rebuild s3://backups/lab --json",
      explanation: "The last line has the report.",
    },
  ],
  run: async (context, input) => {
    const request = {
      kind: "repository-rebuild" as const,
      url: repositoryUrl(input.argument("url")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readStoreLimits(input),
      dryRun: input.flag("dryRun"),
    };
    const report = await runAsJob(context, request, {
      endState: ({ damagedPacks }) => (damagedPacks.length === 0 ? "succeeded" : "damaged"),
    });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    const isWhole = report.damagedPacks.length === 0;
    return isWhole ? exitCodes.done.code : exitCodes.verification.code;
  },
};

function describeReport(report: RebuildReport): string {
  const lines = report.damagedPacks.map(({ object, reason }) => `PACK     ${object}: ${reason}`);
  if (report.condemnedPacks > 0) {
    lines.push(`${report.condemnedPacks} packs were left out: a collection removes them.`);
  }
  const { packs, chunks, written, removed, seconds } = report;
  lines.push(
    `${packs} packs hold ${chunks} chunks; ` +
      (report.isDryRun
        ? "nothing was written (dry run)"
        : `${written} objects of the index written, ${removed} replaced`) +
      `; ${formatDuration(seconds)}.`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
