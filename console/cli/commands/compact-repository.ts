import type { CompactReport } from "@holdfast/shared/contracts/standalone";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseBytes, parsePercentage, parseTimeMs } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatDuration, printable } from "../render/format.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";

export const compactRepository: CommandDefinition = {
  path: "repository compact",
  summary: "move what is needed out of packs that are mostly garbage, or under an old key",
  description:
    "Garbage collection removes packs of which nothing is needed; this frees the rest. What is needed moves to new packs, relocations say where to, and the " +
    "old packs go. Points stay as they were written. Backups, restores and other maintenance may run meanwhile. Sessions that were open when the packs " +
    "were chosen are waited for: where some are open, this run ends with exit code 3 and the next one goes on, as it does when a run was killed. " +
    "--reseal also takes all packs that are sealed under older key epochs; disk records, roots and VM metadata stay under theirs until their points go.",
  arguments: [{ name: "url", summary: "a directory or s3://bucket/prefix" }],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    {
      flags: "--garbage <share>",
      summary: "take packs of which more than this share is garbage (default: 50%)",
    },
    { flags: "--reseal", summary: "also packs that are sealed under older key epochs" },
    { flags: "--limit <bytes>", summary: "take so many stored bytes of packs at most, as 100G" },
    {
      flags: "--wait-for <time>",
      summary: "wait this long for open sessions, and for dead ones to be silent for long enough",
    },
    { flags: "--dry-run", summary: "only say what would be moved" },
    {
      flags: "--allow-share <share>",
      summary: "let this share of all stored bytes be given up at once (default: 50%)",
    },
    ...storeLimitOptions,
  ],
  examples: [
    {
      command: "holdfast repository compact /srv/backup --dry-run",
      explanation: "How much would be freed; nothing is written.",
    },
    {
      command: "holdfast repository compact s3://backups/lab --limit 100G --wait-for 15m --json",
      explanation: "Each night by cron, after the garbage collection.",
    },
    {
      command: "holdfast repository compact s3://backups/lab --reseal --wait-for 1h",
      explanation: "After the keys were rotated.",
    },
  ],
  run: async (context, input) => {
    const garbage = input.text("garbage");
    const limit = input.text("limit");
    const waitFor = input.text("waitFor");
    const allowShare = input.text("allowShare");
    const request = {
      kind: "repository-compact" as const,
      url: repositoryUrl(input.argument("url")),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readStoreLimits(input),
      ...(garbage === undefined ? {} : { share: neededShare(garbage) }),
      ...(limit === undefined ? {} : { limitBytes: parseBytes("--limit", limit) }),
      ...(allowShare === undefined
        ? {}
        : { allowShare: parsePercentage("--allow-share", allowShare) }),
      reseal: input.flag("reseal"),
      dryRun: input.flag("dryRun"),
      waitSeconds: waitFor === undefined ? 0 : parseTimeMs("--wait-for", waitFor) / 1000,
    };
    const report = await runAsJob(context, request, { endState: ({ state }) => state });
    if (!context.settings.json) context.stdout.write(describeReport(report));
    const isDone = report.state === "done" && report.left.damaged.length === 0;
    return isDone || report.isDryRun ? exitCodes.done.code : exitCodes.warnings.code;
  },
};

/** Packs that are all garbage are the collection's, so there is no share of 100%. */
function neededShare(garbage: string): number {
  return Math.max(1 - parsePercentage("--garbage", garbage), Number.EPSILON);
}

function describeReport(report: CompactReport): string {
  const { chosen, earlier, moved, written, removed, left, old, index } = report;
  const lines: string[] = [];
  const say = (isSo: boolean, text: string): void => void (isSo && lines.push(text));
  say(earlier.packs > 0, `Goes on with ${earlier.packs} packs that earlier runs have condemned.`);
  say(
    old.packs > 0,
    `${old.packs} packs (${formatBytes(old.bytes)}) were sealed under older key epochs when this run began.`,
  );
  for (const { name, reason } of left.damaged) lines.push(`DAMAGED  ${name}: ${reason}`);
  for (const { key, until, legalHold } of left.locked.slice(0, 20)) {
    lines.push(`LOCKED   ${key} until ${until ?? (legalHold ? "its hold ends" : "unknown")}`);
  }
  say(left.locked.length > 20, `LOCKED   and ${left.locked.length - 20} more; --json lists them`);
  say(left.movedTooOften > 0, `${left.movedTooOften} packs stay: they were moved too often.`);
  say(left.beyondLimit > 0, `${left.beyondLimit} packs at most are left for the next run.`);
  for (const { sessionId } of report.fenced) {
    lines.push(`Session ${sessionId} was silent and was ended.`);
  }
  for (const { kind, holder, startedAt } of report.waitingFor) {
    lines.push(`WAITS    for ${kind} of ${holder}, begun ${startedAt}`);
  }
  say(report.brake !== undefined, `BRAKE    ${report.brake ?? ""}`);
  const would = `${chosen.packs} packs, ${formatBytes(chosen.bytes)}, of which ${formatBytes(chosen.neededBytes)} is needed`;
  if (report.isDryRun) {
    lines.push(`Would compact ${would}. Nothing was changed.`);
  } else {
    lines.push(
      `Chose ${would}. Moved ${moved.records} records, ${formatBytes(moved.bytes)}, out of ${moved.packs} packs into ${written.packs}; ` +
        `${index.rewritten + index.removed} objects of the index replaced.`,
      `Removed ${removed.packs} packs: ${describeFreed(report.freedBytes)}; ${formatDuration(report.seconds)}.`,
    );
  }
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function describeFreed(bytes: number): string {
  return bytes >= 0 ? `${formatBytes(bytes)} freed` : `${formatBytes(-bytes)} more is stored`;
}
