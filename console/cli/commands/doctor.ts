import type { DoctorReport } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";

export const doctorRepository: CommandDefinition = {
  path: "repository doctor",
  summary: "look at a repository and its storage, and explain what is odd",
  description:
    "Opens the repository, tries what its storage can do as when it was created (a few small objects below probe/, removed again), and " +
    "compares: clocks, lifecycle rules, versioning, Object Lock, overwritten or deleted objects; for a folder its file system, space and " +
    "rights. Each finding comes with its remedy. Exit code 1: something endangers data. Warnings and notes alone are exit code 0. What is " +
    "stored is not read: that is `holdfast repository verify`.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
  ],
  examples: [
    {
      command: "holdfast repository doctor /srv/backup",
      explanation: "Also before the first backup.",
    },
    {
      command: "holdfast repository doctor s3://backups/lab --json --passphrase-file key",
      explanation: "By cron: all findings as one document.",
    },
  ],
  run: async (context, input) => {
    const url = repositoryUrl(input.argument("url"));
    const passphrase = await readPassphrase(context, { file: input.text("passphraseFile") });
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const report = await context.mover.run(
      { kind: "repository-doctor", url, passphrase },
      { signal: stop.signal },
    );
    if (context.settings.json) context.stdout.write(`${JSON.stringify(report)}\n`);
    else context.stdout.write(describe(report));
    const isEndangered = report.findings.some(({ severity }) => severity === "danger");
    return isEndangered ? exitCodes.failed.code : exitCodes.done.code;
  },
};

const words = { danger: "DANGER ", warning: "warning", note: "note   " } as const;

function describe({ findings, repositoryId, url }: DoctorReport): string {
  const lines = findings.flatMap(({ severity, id, what, remedy }) => [
    `${words[severity]}  ${id}: ${what}`,
    ...(remedy === "" ? [] : [`         ${remedy}`]),
  ]);
  const count = (wanted: string): number =>
    findings.filter(({ severity }) => severity === wanted).length;
  const verdict = count("danger") > 0 ? "IN DANGER" : "all right";
  lines.push(
    `${verdict}: ${url}${repositoryId === undefined ? "" : ` (${repositoryId})`}, ${count("danger")} dangers, ${count("warning")} warnings`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
