import type { Job, JobState } from "@holdfast/shared/contracts/catalog-items";
import { jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseWholeNumber } from "../parse-values.ts";
import { formatAge, formatBytes, formatDuration, formatTime, printable } from "../render/format.ts";
import { renderFields, renderTable } from "../render/table.ts";
import { note, printResult, printTable } from "../report.ts";
import { failureText, outcomeText, secondsOf, watchJobs } from "../watch-jobs.ts";
import { buildOverrides } from "./policy.ts";
import { followJobs, newIdempotencyKey } from "./start-job.ts";

const jobArgument = { name: "job", summary: "id of the job" };

const backup: CommandDefinition = {
  path: "backup",
  summary: "back up a VM now",
  arguments: [{ name: "vm", summary: "name or id of the VM" }],
  options: [
    { flags: "--full", summary: "read everything, even where an incremental is possible" },
    {
      flags: "--policy <name>",
      summary: "use this policy's options (default: the first that selects the VM)",
    },
    {
      flags: "--repository <name>",
      summary: "where to (default: the policy's, else the only one)",
    },
    {
      flags: "--strategy <strategy>",
      summary: "how data leaves the host",
      choices: ["auto", "ssh-snapshot", "checkpoint"],
    },
    {
      flags: "--quiesce <mode>",
      summary: "freeze the guest's file systems for the snapshot",
      choices: ["require", "try", "never"],
    },
    { flags: "--exclude-disk <disk>", summary: "leave this disk out (vdb)", repeatable: true },
    { flags: "--no-incremental", summary: "keep nothing on the host for a next incremental" },
  ],
  examples: [
    {
      command: "holdfast backup web1",
      explanation: "Incremental when there is something to build on; shows progress until done.",
    },
    {
      command: "holdfast backup web1 --full --no-wait",
      explanation: "Returns at once with the job's id.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const policyId = input.text("policy");
    const repositoryId = input.text("repository");
    const job = await api.call("startBackup", {
      body: {
        vm: input.argument("vm"),
        full: input.flag("full"),
        ...(policyId === undefined ? {} : { policyId }),
        ...(repositoryId === undefined ? {} : { repositoryId }),
        options: buildOverrides(input),
      },
      idempotencyKey: newIdempotencyKey(context),
    });
    return await followJobs(context, api, [job]);
  },
};

const list: CommandDefinition = {
  path: "jobs",
  summary: "list jobs, newest first",
  options: [
    { flags: "--vm <vm>", summary: "only those of this VM" },
    { flags: "--limit <n>", summary: "how many at most, 1 to 500 (50)" },
  ],
  examples: [
    { command: "holdfast jobs --vm web1 --limit 10", explanation: "What happened to one machine." },
  ],
  run: async (context, input) => {
    const limit = parseWholeNumber("--limit", input.text("limit") ?? "50", { min: 1, max: 500 });
    const vm = input.text("vm");
    const query = vm === undefined ? { limit } : { limit, vm };
    const { items } = await (await context.api()).call("listJobs", { query });
    const now = context.clock.now();
    printTable(
      context,
      { items },
      {
        columns: [
          { title: "JOB" },
          { title: "KIND" },
          { title: "OF" },
          { title: "STATE" },
          { title: "STARTED" },
          { title: "TOOK", align: "right" },
          { title: "REMARK" },
        ],
        rows: items.map((job) => [
          job.jobId,
          job.kind === "inspect" ? job.mode : job.kind,
          job.kind === "inspect" ? job.providerId : job.vmName,
          stateText(job.state, job.stage),
          formatAge(job.startedAt ?? job.createdAt, now),
          formatDuration(secondsOf(job)),
          job.failure?.message ?? job.warnings[0] ?? "",
        ]),
        empty: "No jobs yet. Start one: holdfast backup VM",
      },
    );
    return exitCodes.done.code;
  },
};

const show: CommandDefinition = {
  path: "job show",
  summary: "show a job: state, disks, warnings, log",
  arguments: [jobArgument],
  examples: [
    {
      command: "holdfast job show 0mhq3z5k1-4t7v2c9x8b1d",
      explanation: "The log's last lines tell why it failed.",
    },
  ],
  run: async (context, input) => {
    const detail = await (await context.api()).call("getJob", { id: input.argument("job") });
    const { job, progress, log } = detail;
    printResult(context, detail, (forPeople) =>
      [
        renderFields(jobFields(job), { forPeople }),
        renderTable(
          {
            columns: [
              { title: "DISK" },
              { title: "MODE" },
              { title: "SIZE", align: "right" },
              { title: "DONE", align: "right" },
              { title: "READ", align: "right" },
              { title: "NEW", align: "right" },
              { title: "STORED", align: "right" },
              { title: "REASON" },
            ],
            rows: progress.map((disk) => [
              disk.diskKey,
              disk.mode,
              formatBytes(disk.sizeBytes),
              `${disk.bytesTotal === 0 ? 100 : Math.floor((disk.bytesDone / disk.bytesTotal) * 100)}%`,
              formatBytes(disk.bytesRead),
              formatBytes(disk.bytesNew),
              formatBytes(disk.bytesStored),
              disk.reason,
            ]),
          },
          { forPeople },
        ),
        log
          .map(
            ({ time, level, message }) => `${formatTime(time)}  ${level}  ${printable(message)}\n`,
          )
          .join(""),
      ]
        .filter((part) => part !== "")
        .join(forPeople ? "\n" : ""),
    );
    if (context.stdout.isTerminal && !context.settings.json && jobStatesEnded.includes(job.state)) {
      const hasFailed = job.state === "failed" || job.state === "cancelled";
      note(context, `\n${hasFailed ? failureText(job).trimEnd() : outcomeText(detail)}`);
    }
    return exitCodes.done.code;
  },
};

const watch: CommandDefinition = {
  path: "job watch",
  summary: "follow a job until it ends; Ctrl-C stops watching, not the job",
  description:
    "The exit code is the job's: 0, 3 with warnings, that of its failure, or 9 when the watching ended first.",
  arguments: [jobArgument],
  examples: [
    {
      command: "holdfast job watch 0mhq3z5k1-4t7v2c9x8b1d --json",
      explanation: "One JSON line an event.",
    },
  ],
  run: async (context, input) =>
    await watchJobs(context, await context.api(), [input.argument("job")]),
};

const cancel: CommandDefinition = {
  path: "job cancel",
  summary: "ask a job to stop and to remove what it made",
  arguments: [jobArgument],
  examples: [
    {
      command: "holdfast job cancel 0mhq3z5k1-4t7v2c9x8b1d",
      explanation: "Earlier recovery points are not touched.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const job = await api.call("cancelJob", { id: input.argument("job") });
    if (!context.settings.wait || jobStatesEnded.includes(job.state)) {
      printResult(context, { job }, () => `${job.jobId}\t${job.state}\n`);
      return exitCodes.done.code;
    }
    const code = await watchJobs(context, api, [job.jobId]);
    // Cancelled is what was asked for here.
    return code === exitCodes.cancelled.code ? exitCodes.done.code : code;
  },
};

export const jobCommands: readonly CommandDefinition[] = [backup, list, show, watch, cancel];

function stateText(state: JobState, stage: string | undefined): string {
  return state === "running" && stage !== undefined ? `running: ${stage}` : state;
}

function jobFields(job: Job): readonly (readonly [string, string])[] {
  const fields: (readonly [string, string])[] = [
    ["job", job.jobId],
    ["kind", job.kind === "inspect" ? job.mode : job.kind],
    ["provider", job.providerId],
    ["state", stateText(job.state, job.stage)],
    ["started", formatTime(job.startedAt ?? job.createdAt)],
    ["ended", formatTime(job.endedAt)],
    ["took", formatDuration(secondsOf(job))],
  ];
  if ("vmName" in job) fields.splice(2, 0, ["VM", job.vmName]);
  if (job.kind === "backup") {
    fields.push(["policy", job.policyId ?? "none"], ["repository", job.repositoryId]);
    fields.push(["recovery point", job.pointId ?? "none yet"]);
  }
  if (job.kind === "restore") fields.push(["from point", job.restore.pointId]);
  if (job.failure !== undefined) fields.push(["failure", job.failure.message]);
  for (const cause of job.failure?.causes ?? []) fields.push(["cause", cause]);
  for (const warning of job.warnings) fields.push(["warning", warning]);
  return fields;
}
