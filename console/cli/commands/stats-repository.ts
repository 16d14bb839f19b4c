import type { StatsReport } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseWholeNumber } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatTime, printable } from "../render/format.ts";
import { renderFields, renderTable } from "../render/table.ts";
import { note, printResult } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

export const showRepositoryStats: CommandDefinition = {
  path: "repository stats",
  summary: "what a repository holds, and how well it is packed",
  description:
    "Lists everything once and reads roots and disk records, but no data; what compression saves is read off some of the packs, or off all of them with a " +
    "--sample that is large enough. Nothing is written, so it may run at any time. Garbage is an upper bound; `repository gc --dry-run` says what would go.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--sample <packs>",
      summary: "read so many packs' lists of what they hold (default: 200)",
    },
  ],
  examples: [
    { command: "holdfast repository stats /srv/backup", explanation: "A page for people." },
    {
      command: "holdfast repository stats s3://backups/lab --json",
      explanation: "One JSON document, in bytes; for dashboards.",
    },
  ],
  run: async (context, input) => {
    const sample = input.text("sample");
    const report = await context.mover.run(
      {
        kind: "repository-stats",
        url: repositoryUrl(input.argument("url")),
        passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
        ...(sample === undefined
          ? {}
          : {
              samplePacks: parseWholeNumber("--sample", sample, { min: 0, max: 100_000_000 }),
            }),
      },
      {
        onNote: (message) => note(context, printable(message)),
        onWarning: (message) => note(context, `warning: ${printable(message)}`),
      },
    );
    printResult(context, report, (forPeople) => describe(report, forPeople));
    return exitCodes.done.code;
  },
};

function describe(report: StatsReport, forPeople: boolean): string {
  const { points, stored, packs, sample, ratios, keys } = report;
  const about = sample.isExact ? "" : "about ";
  const fields: [string, string][] = [
    ["repository", `${report.repositoryId} at ${report.url}`],
    ["points", `${points.count} of ${points.vms} VMs and images`],
    ["taken", `${formatTime(points.oldest)} to ${formatTime(points.newest)}`],
    ["logical", `${formatBytes(points.logicalBytes)}, holes included`],
    ["unique", `${about}${formatBytes(ratios.uniqueBytes)} before compression`],
    ["stored", `${formatBytes(stored.bytes)} in ${stored.objects} objects`],
    ["compression", `${about}${ratios.compression.toFixed(2)} to 1`],
    ["logical to stored", `${ratios.logicalToStored.toFixed(1)} to 1`],
    [
      "packs",
      `${packs.count}, ${(packs.fill * 100).toFixed(0)}% full, ${packs.halfEmpty} of them less than half needed`,
    ],
    [
      "garbage",
      packs.garbageBytes === undefined
        ? `not known: ${report.unreadable ?? ""}`
        : `at most ${formatBytes(packs.garbageBytes)}`,
    ],
    ["key epochs", `${keys.epochs.join(", ")} (new objects: ${keys.activeEpoch})`],
  ];
  const say = (isSo: boolean, field: [string, string]): void => void (isSo && fields.push(field));
  say(packs.inWorkBytes > 0, ["in work", formatBytes(packs.inWorkBytes)]);
  say(points.damaged > 0, ["damaged points", String(points.damaged)]);
  say(points.unreadable > 0, ["unreadable roots", String(points.unreadable)]);
  say(sample.unreadable > 0, ["unreadable packs", `${sample.unreadable} of those looked at`]);
  for (const { kind, holder, startedAt } of report.sessions) {
    fields.push(["open session", `${kind} of ${holder} since ${formatTime(startedAt)}`]);
  }
  for (const its of report.condemned) {
    const objects = its.packs + its.roots + its.objects;
    fields.push(["condemned", `${objects} objects, ${formatTime(its.madeAt)}`]);
  }
  const table = renderTable(
    {
      columns: [
        { title: "STORED" },
        { title: "OBJECTS", align: "right" },
        { title: "BYTES", align: "right" },
      ],
      rows: stored.classes
        .filter(({ objects }) => objects > 0)
        .map(({ kind, objects, bytes }) => [kind, String(objects), formatBytes(bytes)]),
    },
    { forPeople },
  );
  const safe = fields.map(([name, text]): [string, string] => [name, printable(text)]);
  return `${renderFields(safe, { forPeople })}\n${table}`;
}
