import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition, CommandInput } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseBytes, parsePercentage, parseTimeMs } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatDuration, formatTime, printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";

export const verifyRepository: CommandDefinition = {
  path: "repository verify",
  summary: "read what is stored, and name each recovery point that is damaged",
  description:
    "Reads every pack whole, each stored byte once: decrypts, inflates and hashes again, footers too. It remembers in the repository what was verified " +
    "when, and what is damaged, so that a run that was cut off goes on, and the next backups store lost data again. What chunks are where is always " +
    "checked for every point. --sample reads a share of the chunks, another one each time. Damaged is exit code 8, and the list says " +
    "which points, disks and byte ranges cannot be restored; everything else can. A storage that does not answer is not called damage.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    { flags: "--all", summary: "read all that is stored; this is the default" },
    { flags: "--every <time>", summary: "read what was not verified for so long, oldest first" },
    { flags: "--limit <bytes>", summary: "stop cleanly after so many stored bytes, as 1T" },
    { flags: "--for <time>", summary: "stop reading packs cleanly after this time, as 2h" },
    { flags: "--restart", summary: "begin anew, also where a run was cut off" },
    {
      flags: "--sample <share>",
      summary: "read this share of the chunks only, as 5%",
    },
    { flags: "--point <point>", summary: "only this recovery point" },
    { flags: "--read-only", summary: "write nothing, so remember nothing" },
    ...storeLimitOptions,
  ],
  examples: [
    {
      command: "holdfast repository verify /srv/backup",
      explanation: "All of it: as much is read as is stored.",
    },
    {
      command: "holdfast repository verify s3://backups/lab --every 30d --for 2h --json",
      explanation:
        "Each night by cron: everything is read every 30 days; the last line has the report.",
    },
    {
      command: "holdfast repository verify s3://backups/lab --sample 5%",
      explanation: "A share of every point's chunks.",
    },
    {
      command: "holdfast repository verify /srv/backup --point 0mhq3z5k1-4t7v2c9x8b1d",
      explanation: "Before relying on one point.",
    },
  ],
  run: async (context, input) => {
    const request = {
      kind: "repository-verify" as const,
      url: repositoryUrl(input.argument("url")),
      ...readScope(input),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readStoreLimits(input),
    };
    const report = await runAsJob(context, request, {
      endState: (result) => (isDamaged(result) ? "damaged" : "succeeded"),
    });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    return isDamaged(report) ? exitCodes.verification.code : exitCodes.done.code;
  },
};

function readScope(input: CommandInput) {
  const sample = input.text("sample");
  const pointId = input.text("point");
  const every = input.text("every");
  const limit = input.text("limit");
  const time = input.text("for");
  const isPart = sample !== undefined || pointId !== undefined;
  const ofWhole = ["all", "restart"].filter((flag) => input.flag(flag));
  const withValue = { every, limit, for: time };
  ofWhole.push(
    ...Object.entries(withValue).flatMap(([name, value]) => (value === undefined ? [] : [name])),
  );
  if (isPart && ofWhole.length > 0) {
    throw new Failure("input.invalid", {
      message: `--${ofWhole[0]} is about reading whole packs; it does not go with --sample or --point`,
    });
  }
  return {
    share: sample === undefined ? 1 : parsePercentage("--sample", sample),
    ...(pointId === undefined ? {} : { pointId }),
    ...(every === undefined ? {} : { everySeconds: parseTimeMs("--every", every) / 1000 }),
    ...(limit === undefined ? {} : { limitBytes: parseBytes("--limit", limit) }),
    ...(time === undefined ? {} : { limitSeconds: parseTimeMs("--for", time) / 1000 }),
    restart: input.flag("restart"),
    readOnly: input.flag("readOnly"),
  };
}

function isDamaged(report: VerifyReport): boolean {
  return report.damagedPoints.length + report.damagedObjects.length > 0;
}

/** Ranges on a screen; --json has all. */
const rangesShown = 20;

function describeReport(report: VerifyReport): string {
  const lines: string[] = [];
  lines.push(...describeDamage(report));
  for (const { object, reason } of report.damagedObjects) {
    lines.push(`OBJECT   ${object}: ${reason}`);
  }
  for (const { object, reason } of report.harmless) {
    lines.push(`harmless ${object}: ${reason}`);
  }
  const { points, disks, chunksChecked, bytesRead, bytesChecked, seconds, share, whole } = report;
  const verdict = isDamaged(report)
    ? `DAMAGED: ${report.damagedPoints.length} of ${points} points that can be listed, ${report.damagedObjects.length} objects`
    : share < 1 || (whole?.packsLeft ?? 0) > 0
      ? "no damage found in what was read"
      : "all right";
  const part = share < 1 ? ` (a sample of ${Number((share * 100).toFixed(6))}%)` : "";
  lines.push(
    `${verdict}: ${points} points, ${disks} disks, ${chunksChecked} chunks${part}, ` +
      `${formatBytes(bytesRead)} read, ${formatBytes(bytesChecked)} unpacked, ${formatDuration(seconds)}`,
  );
  if (whole !== undefined) lines.push(...describeWhole(whole));
  return lines.map((line) => `${printable(line)}\n`).join("");
}

/** One line a point and disk, and the ranges that cannot be restored. */
export function describeDamage({ damagedPoints }: Pick<VerifyReport, "damagedPoints">): string[] {
  const lines: string[] = [];
  for (const point of damagedPoints) {
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
  return lines;
}

function describeWhole(whole: NonNullable<VerifyReport["whole"]>): string[] {
  const { ages, bytesStored, packsLeft, bytesLeft, resumedFrom, notRemembered } = whole;
  const lines: string[] = [];
  if (resumedFrom !== undefined) {
    lines.push(`went on where the run of ${formatTime(resumedFrom)} was cut off`);
  }
  if (packsLeft > 0) {
    lines.push(`${formatBytes(bytesLeft)} in ${packsLeft} packs are due still: run it again`);
  }
  const share = (bytes: number): string =>
    bytesStored === 0 ? "-" : `${((100 * bytes) / bytesStored).toFixed(1)}%`;
  lines.push(
    `of ${formatBytes(bytesStored)} in packs were verified: within 24 h ${share(ages.day)}, 7 days ${share(ages.day + ages.week)}, ` +
      `30 days ${share(ages.day + ages.week + ages.month)}, longer ago ${share(ages.older)}, never ${share(ages.never)}`,
  );
  if (notRemembered !== undefined) lines.push(`nothing was remembered: ${notRemembered}`);
  return lines;
}
