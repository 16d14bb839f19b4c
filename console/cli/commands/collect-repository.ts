import type { ExpiredPoint } from "@holdfast/shared/contracts/catalog-items";
import type { CollectReport } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { type ExitCode, exitCodes } from "../exit-codes.ts";
import { parsePercentage, parseTimeMs } from "../parse-values.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatBytes, formatDuration, printable } from "../render/format.ts";
import { renderTable } from "../render/table.ts";
import { repositoryUrl } from "../repository-url.ts";
import { readStoreLimits, storeLimitOptions } from "./limits.ts";
import { runAsJob } from "./run-as-job.ts";

export const collectOptions: readonly OptionDefinition[] = [
  { flags: "--dry-run", summary: "only say what would go, and why" },
  {
    flags: "--wait-for <time>",
    summary: "wait this long for open sessions, and for dead ones to be silent for long enough",
  },
  {
    flags: "--allow-share <share>",
    summary: "let this share of the stored bytes and of the points go at once (default: 50%)",
  },
  { flags: "--allow-empty", summary: "also when no recovery point is left" },
  {
    flags: "--drop-damaged-lists",
    summary:
      "remove condemned lists that do not open and keep backups from beginning; only while no other collection runs or sleeps anywhere",
  },
  ...storeLimitOptions,
];

export const collectRepository: CommandDefinition = {
  path: "repository gc",
  summary: "remove what no recovery point needs any more",
  description:
    "Backups, restores and other collections may run meanwhile. What is garbage is condemned first and removed once every session that was open then has " +
    "ended: where some are open, this run ends with exit code 3 and the next one goes on, as it does when a run was killed. Sessions that show no sign of " +
    "life for as long as they said they never would are ended. Nothing is removed while a root or disk record of a point cannot be read.",
  arguments: [
    {
      name: "repository",
      summary:
        "a directory or s3://bucket/prefix; or the name of one that the control plane knows, to remove also what its retention has taken off the lists",
    },
  ],
  options: [
    {
      flags: "--passphrase-file <file>",
      summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
    },
    ...collectOptions,
  ],
  examples: [
    {
      command: "holdfast repository gc /srv/backup --dry-run",
      explanation: "What would go and why; nothing is written.",
    },
    {
      command: "holdfast repository gc s3://backups/lab --wait-for 15m --json",
      explanation: "Each night by cron; the last line has the report.",
    },
    {
      command: "holdfast repository gc offsite --passphrase-file key",
      explanation:
        "By its name in the control plane: the data of points that policies no longer keep go, too.",
    },
  ],
  run: async (context, input) => {
    const place = input.argument("repository");
    const known = knownName.test(place) ? await findKnown(context, place) : undefined;
    const request = {
      kind: "repository-collect" as const,
      url: repositoryUrl(known?.url ?? place),
      passphrase: await readPassphrase(context, { file: input.text("passphraseFile") }),
      ...readCollectOptions(input),
      ...(known && { expire: known.expired.map(({ rootKey }) => rootKey) }),
    };
    const report = await runAsJob(context, request, { endState: ({ state }) => state });
    if (known !== undefined) await forgetExpired(context, place, known.expired, report.gone ?? []);
    return printCollected(context, report);
  },
};

/** What `repository add` takes. A directory of such a name is written as ./name. */
const knownName = /^[a-z0-9][a-z0-9-]*$/;
/** In one call of the API. */
const forgottenAtOnce = 1000;

/** Nothing expires because a list lacks it: only what retention has noted. */
async function findKnown(
  context: Context,
  repositoryId: string,
): Promise<{ readonly url: string; readonly expired: readonly ExpiredPoint[] }> {
  const api = await context.api();
  const { items } = await api.call("listRepositories");
  const known = items.find((item) => item.repositoryId === repositoryId);
  if (known === undefined) {
    throw new Failure("not-found", {
      message: `the control plane knows no repository ${JSON.stringify(repositoryId)}; a directory of that name is ./${repositoryId}`,
    });
  }
  const expired = await api.call("listExpired", { id: repositoryId });
  return { url: known.url, expired: expired.items };
}

async function forgetExpired(
  context: Context,
  repositoryId: string,
  expired: readonly ExpiredPoint[],
  gone: readonly string[],
): Promise<void> {
  const roots = new Set(gone);
  const removed = expired.filter(({ rootKey }) => roots.has(rootKey)).map((its) => its.pointId);
  if (removed.length === 0) return;
  const api = await context.api();
  for (let at = 0; at < removed.length; at += forgottenAtOnce) {
    const some = removed.slice(at, at + forgottenAtOnce);
    await api.call("forgetExpired", { id: repositoryId, body: { removed: some } });
  }
}

export function readCollectOptions(input: CommandInput) {
  const waitFor = input.text("waitFor");
  const allowShare = input.text("allowShare");
  return {
    dryRun: input.flag("dryRun"),
    waitSeconds: waitFor === undefined ? 0 : parseTimeMs("--wait-for", waitFor) / 1000,
    ...(allowShare === undefined
      ? {}
      : { allowShare: parsePercentage("--allow-share", allowShare) }),
    allowEmpty: input.flag("allowEmpty"),
    dropDamagedLists: input.flag("dropDamagedLists"),
    ...readStoreLimits(input),
  };
}

const reasons: Readonly<Record<string, string>> = {
  "expired-point": "recovery points that expire",
  "superseded-attempt": "attempts that came to nothing",
  "not-needed": "no point needs it any more",
  "no-point": "its backup ended without a point",
  checkpoint: "progress of transfers that have ended",
  "session-record": "records of sessions that have ended",
  replaced: "notes that newer ones replace",
  probe: "left by a probe of the storage",
};

export function printCollected(context: Context, report: CollectReport): ExitCode {
  if (!context.settings.json) context.stdout.write(describeCollected(report));
  const isWell = report.missingPacks.length + report.unexplained.length === 0;
  const isDone = report.state === "done" && isWell;
  return isDone || report.isDryRun ? exitCodes.done.code : exitCodes.warnings.code;
}

function describeCollected(report: CollectReport): string {
  const { garbage, removed, points, index, halfEmpty, unknown } = report;
  const table = renderTable(
    {
      columns: [
        { title: report.isDryRun ? "WOULD GO, BECAUSE" : "GARBAGE, BECAUSE" },
        { title: "OBJECTS", align: "right" },
        { title: "BYTES", align: "right" },
      ],
      rows: garbage.classes.map(({ reason, objects, bytes }) => [
        reasons[reason] ?? reason,
        String(objects),
        formatBytes(bytes),
      ]),
    },
    { forPeople: true },
  );
  const lines: string[] = [];
  const say = (isSo: boolean, text: string): void => void (isSo && lines.push(text));
  if (report.isDryRun) {
    for (const { name, sizeBytes, reason } of garbage.largest.slice(0, 5)) {
      lines.push(
        `  ${formatBytes(sizeBytes).padStart(9)}  ${name}  (${reasons[reason] ?? reason})`,
      );
    }
  }
  say(
    report.earlier.lists > 0,
    `Goes on with ${report.earlier.objects} objects that earlier runs have condemned.`,
  );
  for (const key of points.held) lines.push(`${key} stays for now: an open session uses it.`);
  say(
    index.rewritten + index.removed > 0,
    `Index: ${index.rewritten} objects written anew, ${index.removed} removed.`,
  );
  say(index.merged > 0, `Index: ${index.merged} objects merged into fewer.`);
  say(report.reprieved > 0, `${report.reprieved} objects stay: they are needed again.`);
  for (const { sessionId, adopted } of report.fenced) {
    lines.push(
      `Session ${sessionId} was silent and was ended${adopted.length > 0 ? `; ${adopted.join(", ")} counts as committed` : ""}.`,
    );
  }
  for (const { key, until, legalHold } of report.locked.slice(0, 20)) {
    lines.push(`LOCKED   ${key} until ${until ?? (legalHold ? "its hold ends" : "unknown")}`);
  }
  say(
    report.locked.length > 20,
    `LOCKED   and ${report.locked.length - 20} more; --json lists them`,
  );
  for (const { rootKey, vmName, takenAt, keptForSeconds } of report.unexplained) {
    lines.push(
      `ALARM    ${rootKey} (${vmName}, ${takenAt}) is no point any more: who or what removed objects under sessions/? Put them back from the storage's versions or a copy; it goes in ${formatDuration(keptForSeconds)}`,
    );
  }
  for (const name of report.missingPacks) lines.push(`MISSING  ${name}: a point needs it`);
  say(
    halfEmpty.packs > 0,
    `${halfEmpty.packs} packs (${formatBytes(halfEmpty.bytes)}) are more than half empty: ${formatBytes(halfEmpty.bytes - halfEmpty.neededBytes)} at most could be freed by compaction.`,
  );
  say(
    unknown.count > 0,
    `${unknown.count} objects are not Holdfast's and were left: ${unknown.names.slice(0, 5).join(", ")}`,
  );
  for (const { kind, holder, startedAt } of report.waitingFor) {
    lines.push(`WAITS    for ${kind} of ${holder}, begun ${startedAt}`);
  }
  say(report.brake !== undefined, `BRAKE    ${report.brake ?? ""}`);
  lines.push(describeEnd(report, removed, points));
  return table + lines.map((line) => `${printable(line)}\n`).join("");
}

function describeEnd(
  { isDryRun, state, garbage, stored, seconds }: CollectReport,
  removed: CollectReport["removed"],
  points: CollectReport["points"],
): string {
  const kept = points.kept === 1 ? "1 point stays" : `${points.kept} points stay`;
  const of = `of ${stored.objects} objects, ${formatBytes(stored.bytes)}`;
  if (isDryRun) {
    return `Would remove ${garbage.objects} objects, ${formatBytes(garbage.bytes)} ${of}; ${kept}. Nothing was changed.`;
  }
  const next = {
    done: "done",
    waiting: "what is condemned goes in the next run",
    more: "the next run takes the rest",
    locked: "Object Lock keeps some of it",
  }[state];
  return `Removed ${removed.objects} objects, ${formatBytes(removed.bytes)} ${of}; ${kept}; ${next}; ${formatDuration(seconds)}.`;
}
