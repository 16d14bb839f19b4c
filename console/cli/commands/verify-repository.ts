import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatDuration, formatTime, printable } from "../render/format.ts";
import { repositoryUrl } from "./image.ts";
import { runAsJob } from "./run-as-job.ts";

export const verifyRepository: CommandDefinition = {
  path: "repository verify",
  summary: "read what the recovery points need, and name each one that is damaged",
  description:
    "Reads as a restore would: decrypts, inflates and hashes again. Nothing is written. What chunks are where is always checked for " +
    "every point; --sample reads a share of the chunks themselves, another one each time. Damaged is exit code 8, and the list says " +
    "which points, disks and byte ranges cannot be restored; everything else can. A storage that does not answer is not called damage. " +
    "A point whose root object was removed from the storage cannot be seen from there; `holdfast points` knows of it.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--sample <share>",
      summary: "read this share of the chunks only, as 5% (default: 100%)",
    },
    { flags: "--point <point>", summary: "only this recovery point" },
  ],
  examples: [
    {
      command: "holdfast repository verify /srv/backup",
      explanation: "All of it: as much is read as is stored.",
    },
    {
      command:
        "holdfast repository verify s3://backups/lab --sample 5% --json --passphrase-file key",
      explanation: "Each night by cron: a share, as events; the last line has the report.",
    },
    {
      command: "holdfast repository verify /srv/backup --point 0mhq3z5k1-4t7v2c9x8b1d",
      explanation: "Before relying on one point.",
    },
  ],
  run: async (context, input) => {
    const sample = input.text("sample");
    const pointId = input.text("point");
    const share = sample === undefined ? 1 : parseShare(sample);
    const request = {
      kind: "repository-verify" as const,
      url: repositoryUrl(input.argument("url")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      share,
      ...(pointId === undefined ? {} : { pointId }),
    };
    const report = await runAsJob(context, request, {
      endState: (result) => (isDamaged(result) ? "damaged" : "succeeded"),
    });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    return isDamaged(report) ? exitCodes.verification.code : exitCodes.done.code;
  },
};

function isDamaged(report: VerifyReport): boolean {
  return report.damagedPoints.length + report.damagedObjects.length > 0;
}

/** `5%` or `0.5%`: without the sign it would not be clear what 1 means. */
function parseShare(text: string): number {
  const percent = Number(/^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text.trim())?.[1] ?? Number.NaN);
  if (percent > 0 && percent <= 100) return percent / 100;
  throw new Failure("input.invalid", {
    message: `--sample ${JSON.stringify(text)} is not a share above 0% and up to 100%; write 5%`,
  });
}

/** Ranges on a screen; --json has all. */
const rangesShown = 20;

function describeReport(report: VerifyReport): string {
  const lines: string[] = [];
  for (const point of report.damagedPoints) {
    const name = `${point.pointId} (${point.name}, ${formatTime(point.takenAt)})`;
    if (point.metadata !== undefined) {
      lines.push(`DAMAGED  ${name}: the VM's metadata: ${point.metadata}`);
    }
    for (const { disk, sizeBytes, bytesDamaged, ranges, rangesOmitted, reason } of point.disks) {
      const sizes = `${formatBytes(bytesDamaged)} of ${formatBytes(sizeBytes)}`;
      lines.push(`DAMAGED  ${name}: disk ${disk}, ${sizes}: ${reason}`);
      for (const { offset, length } of ranges.slice(0, rangesShown)) {
        lines.push(`           bytes ${offset} to ${offset + length - 1}`);
      }
      const more = Math.max(0, ranges.length - rangesShown) + rangesOmitted;
      if (more > 0) lines.push(`           and ${more} more ranges; --json lists them`);
    }
  }
  for (const { object, reason } of report.damagedObjects) {
    lines.push(`OBJECT   ${object}: ${reason}`);
  }
  for (const { object, reason } of report.harmless) {
    lines.push(`harmless ${object}: ${reason}`);
  }
  const { points, disks, chunksChecked, bytesRead, bytesChecked, seconds, share } = report;
  const verdict = isDamaged(report)
    ? `DAMAGED: ${report.damagedPoints.length} of ${points} points that can be listed, ${report.damagedObjects.length} objects`
    : share < 1
      ? "no damage found in what was read"
      : "all right";
  const part = share < 1 ? ` (a sample of ${Number((share * 100).toFixed(6))}%)` : "";
  lines.push(
    `${verdict}: ${points} points, ${disks} disks, ${chunksChecked} chunks${part}, ` +
      `${formatBytes(bytesRead)} read, ${formatBytes(bytesChecked)} unpacked, ${formatDuration(seconds)}`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}
