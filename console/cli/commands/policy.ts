import { readFile } from "node:fs/promises";
import { BackupOverrides, PolicyChange } from "@holdfast/shared/contracts/api";
import type { Policy } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import { quiesceModes, type Retention, strategies } from "@holdfast/shared/domain/policy";
import type { ApiClient } from "../api-client.ts";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseChoice, parseWholeNumber } from "../parse-values.ts";
import { printable } from "../render/format.ts";
import { note, printFields, printResult, printTable } from "../report.ts";
import { watchJobs } from "../watch-jobs.ts";
import { newIdempotencyKey } from "./start-job.ts";
import { vmTable } from "./vm.ts";

const nameArgument = { name: "name", summary: "name of the policy" };
const keepRules = ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const;
const strategyChoices = ["auto", ...strategies] as const;

const definitionOptions: readonly OptionDefinition[] = [
  { flags: "--repository <name>", summary: "where to (default: the only repository there is)" },
  {
    flags: "--match-name <glob>",
    summary: "VMs whose name matches, * and ?; all --match options must hold",
  },
  { flags: "--match-provider <name>", summary: "VMs of this provider", repeatable: true },
  { flags: "--match-tag <tag>", summary: "VMs with this tag", repeatable: true },
  { flags: "--match-vm <vm>", summary: "this VM, by name or id", repeatable: true },
  {
    flags: "--schedule <expression>",
    summary: "'cron(0 2 * * ? *)' or 'rate(6 hours)'; 'none': on demand only",
  },
  { flags: "--time-zone <zone>", summary: "time zone of the schedule (UTC)" },
  ...keepRules.map((rule) => ({
    flags: `--keep-${rule} <n>`,
    summary: `recovery points kept by the rule ${rule}`,
  })),
  { flags: "--strategy <strategy>", summary: "how data leaves the host", choices: strategyChoices },
  {
    flags: "--quiesce <mode>",
    summary: "freeze the guest's file systems for the snapshot",
    choices: quiesceModes,
  },
  { flags: "--exclude-disk <disk>", summary: "leave this disk out (vdb)", repeatable: true },
  {
    flags: "--pre-command <command>",
    summary: 'before the snapshot: \'host:["sync"]\' or \'guest:["/bin/x","arg"]\'',
    repeatable: true,
  },
  { flags: "--post-command <command>", summary: "after the snapshot, same form", repeatable: true },
  { flags: "--no-incremental", summary: "read everything each time, keep nothing on the host" },
  {
    flags: "--file <file>",
    summary: "definition as JSON, as `policy show --json` prints it; other options win",
  },
];

const create: CommandDefinition = {
  path: "policy create",
  summary: "say which VMs are backed up, when, how, and how long points are kept",
  arguments: [{ name: "name", summary: "name for it: lower-case letters, digits and dashes" }],
  options: definitionOptions,
  examples: [
    {
      command:
        "holdfast policy create nightly --match-name 'web*' --schedule 'cron(0 2 * * ? *)' --keep-daily 14 --keep-monthly 6",
      explanation: "Every VM whose name starts with web, each night at two.",
    },
    {
      command: "holdfast policy create all --match-name '*' --quiesce require",
      explanation: "On demand, and only with a frozen guest.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const change = await buildChange(api, input, await readDefinition(input));
    const policy = await api.call("addPolicy", {
      body: { ...change, policyId: input.argument("name") },
    });
    printFields(context, policy, policyFields(policy));
    note(
      context,
      `Next: holdfast policy matches ${policy.policyId}, then holdfast policy run ${policy.policyId}`,
    );
    return exitCodes.done.code;
  },
};

const update: CommandDefinition = {
  path: "policy update",
  summary: "change a policy; what is not given stays",
  arguments: [nameArgument],
  options: definitionOptions,
  examples: [
    {
      command: "holdfast policy update nightly --keep-daily 30",
      explanation: "Everything else stays.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const id = input.argument("name");
    const {
      policyId: _id,
      createdAt: _createdAt,
      ...current
    } = await api.call("getPolicy", { id });
    const base = { ...current, ...(await readDefinition(input)) };
    const policy = await api.call("changePolicy", {
      id,
      body: await buildChange(api, input, base),
    });
    printFields(context, policy, policyFields(policy));
    return exitCodes.done.code;
  },
};

const list: CommandDefinition = {
  path: "policy list",
  summary: "list policies",
  examples: [{ command: "holdfast policy list", explanation: "With schedule and retention." }],
  run: async (context) => {
    const { items } = await (await context.api()).call("listPolicies");
    printTable(
      context,
      { items },
      {
        columns: [
          { title: "NAME" },
          { title: "VMS" },
          { title: "SCHEDULE" },
          { title: "KEEP" },
          { title: "REPOSITORY" },
        ],
        rows: items.map((policy) => [
          policy.policyId,
          selectionText(policy.selection),
          policy.schedule === undefined ? "on demand" : `${policy.schedule} ${policy.timeZone}`,
          retentionText(policy.retention),
          policy.repositoryId,
        ]),
        empty:
          "No policies yet. Add one: holdfast policy create NAME --match-name '*' --keep-daily 14",
      },
    );
    return exitCodes.done.code;
  },
};

const show: CommandDefinition = {
  path: "policy show",
  summary: "show a policy",
  arguments: [nameArgument],
  examples: [
    {
      command: "holdfast policy show nightly --json > nightly.json",
      explanation: "Can be given to --file again.",
    },
  ],
  run: async (context, input) => {
    const policy = await (await context.api()).call("getPolicy", { id: input.argument("name") });
    printFields(context, policy, policyFields(policy));
    return exitCodes.done.code;
  },
};

const remove: CommandDefinition = {
  path: "policy remove",
  summary: "remove a policy and its schedule; recovery points stay",
  arguments: [nameArgument],
  examples: [
    {
      command: "holdfast policy remove nightly",
      explanation: "Nothing is deleted from the repository.",
    },
  ],
  run: async (context, input) => {
    const id = input.argument("name");
    await (await context.api()).call("removePolicy", { id });
    printFields(context, { removed: id }, [["removed", id]]);
    return exitCodes.done.code;
  },
};

const matches: CommandDefinition = {
  path: "policy matches",
  summary: "list the VMs that a policy selects now",
  arguments: [nameArgument],
  examples: [
    {
      command: "holdfast policy matches nightly",
      explanation: "Before the first run: is it what was meant?",
    },
  ],
  run: async (context, input) => {
    const { items } = await (await context.api()).call("listPolicyMatches", {
      id: input.argument("name"),
    });
    printTable(
      context,
      { items },
      vmTable(items, context.clock.now(), "The policy selects no VM."),
    );
    return exitCodes.done.code;
  },
};

const run: CommandDefinition = {
  path: "policy run",
  summary: "back up every VM that a policy selects, now",
  arguments: [nameArgument],
  examples: [
    {
      command: "holdfast policy run nightly --no-wait",
      explanation: "Returns once the jobs are accepted.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const started = await api.call("runPolicy", {
      id: input.argument("name"),
      idempotencyKey: newIdempotencyKey(context),
    });
    for (const { vmName, reason } of started.skipped) {
      note(context, `Skipped ${printable(vmName)}: ${printable(reason)}`);
    }
    if (!context.settings.wait) {
      printResult(context, started, () => started.jobs.map(({ jobId }) => `${jobId}\n`).join(""));
      return started.skipped.length > 0 ? exitCodes.warnings.code : exitCodes.done.code;
    }
    if (started.jobs.length === 0) {
      printResult(context, started, () => "");
      note(context, "No job was started. What the policy selects: holdfast policy matches");
      return started.skipped.length > 0 ? exitCodes.conflict.code : exitCodes.done.code;
    }
    const code = await watchJobs(
      context,
      api,
      started.jobs.map(({ jobId }) => jobId),
    );
    return code === exitCodes.done.code && started.skipped.length > 0
      ? exitCodes.warnings.code
      : code;
  },
};

export const policyCommands: readonly CommandDefinition[] = [
  create,
  update,
  list,
  show,
  remove,
  matches,
  run,
];

type Definition = { readonly [Field in keyof PolicyChange]?: PolicyChange[Field] | undefined };

async function readDefinition(input: CommandInput): Promise<Definition> {
  const file = input.text("file");
  if (file === undefined) return {};
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    throw new Failure("input.invalid", { message: `--file: ${file} cannot be read`, cause: error });
  });
  try {
    const { policyId: _id, createdAt: _createdAt, ...rest } = JSON.parse(text);
    return PolicyChange.partial().parse(rest);
  } catch (error) {
    throw new Failure("input.invalid", {
      message: `--file: ${file} is no definition of a policy`,
      cause: error,
    });
  }
}

async function buildChange(
  api: ApiClient,
  input: CommandInput,
  base: Definition,
): Promise<PolicyChange> {
  const schedule = input.text("schedule") ?? base.schedule;
  const change: PolicyChange = {
    ...base,
    repositoryId: input.text("repository") ?? base.repositoryId ?? (await onlyRepository(api)),
    selection: await buildSelection(api, input, base.selection ?? {}),
    timeZone: input.text("timeZone") ?? base.timeZone,
    options: { ...base.options, ...buildOverrides(input) },
    retention: buildRetention(input, base.retention ?? {}),
  };
  const { schedule: _schedule, ...unscheduled } = change;
  return schedule === undefined || schedule === "none" ? unscheduled : { ...unscheduled, schedule };
}

async function onlyRepository(api: ApiClient): Promise<string> {
  const { items } = await api.call("listRepositories");
  const [only] = items;
  if (only !== undefined && items.length === 1) return only.repositoryId;
  const names = items.map(({ repositoryId }) => repositoryId).join(", ") || "none yet";
  throw new Failure("input.invalid", { message: `say which --repository; there are: ${names}` });
}

async function buildSelection(
  api: ApiClient,
  input: CommandInput,
  base: PolicyChange["selection"],
): Promise<PolicyChange["selection"]> {
  const name = input.text("matchName");
  const providers = input.list("matchProvider");
  const tags = input.list("matchTag");
  const vmIds: string[] = [];
  for (const vm of input.list("matchVm")) vmIds.push((await api.call("getVm", { id: vm })).vmId);
  const selection = {
    ...base,
    ...(name === undefined ? {} : { namePattern: name }),
    ...(providers.length === 0 ? {} : { providerIds: [...providers] }),
    ...(tags.length === 0 ? {} : { tags: [...tags] }),
    ...(vmIds.length === 0 ? {} : { vmIds }),
  };
  if (Object.keys(selection).length > 0) return selection;
  throw new Failure("input.invalid", {
    message:
      "say which VMs with --match-name, --match-provider, --match-tag or --match-vm; '*' means all",
  });
}

/** The options of a backup that the command line names; used by `backup` as well. */
export function buildOverrides(input: CommandInput): BackupOverrides {
  const strategy = input.text("strategy");
  const quiesce = input.text("quiesce");
  const excludeDisks = input.list("excludeDisk");
  const preCommands = input.list("preCommand").map((text) => parseHook("--pre-command", text));
  const postCommands = input.list("postCommand").map((text) => parseHook("--post-command", text));
  const overrides = {
    ...(strategy === undefined
      ? {}
      : { strategy: parseChoice("--strategy", strategy, strategyChoices) }),
    ...(quiesce === undefined ? {} : { quiesce: parseChoice("--quiesce", quiesce, quiesceModes) }),
    ...(excludeDisks.length === 0 ? {} : { excludeDisks: [...excludeDisks] }),
    ...(preCommands.length === 0 ? {} : { preCommands }),
    ...(postCommands.length === 0 ? {} : { postCommands }),
    ...(input.isNegated("incremental") ? { incremental: false } : {}),
  };
  const parsed = BackupOverrides.safeParse(overrides);
  if (parsed.success) return parsed.data;
  throw new Failure("input.invalid", {
    message: "an option's value is not valid",
    cause: parsed.error,
  });
}

type Hook = NonNullable<NonNullable<PolicyChange["options"]>["preCommands"]>[number];

function parseHook(option: string, text: string): Hook {
  const [, where, vector = ""] = /^(host|guest):(.*)$/s.exec(text) ?? [];
  try {
    const command: unknown = JSON.parse(vector);
    const isVector = Array.isArray(command) && command.every((word) => typeof word === "string");
    if (isVector && (where === "host" || where === "guest")) return { where, command };
  } catch {
    // Falls through to the failure that shows the form.
  }
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text.slice(0, 80))} is not of the form host:["command","argument"]`,
  });
}

function buildRetention(
  input: CommandInput,
  base: NonNullable<PolicyChange["retention"]>,
): NonNullable<PolicyChange["retention"]> {
  const given = Object.fromEntries(
    keepRules.flatMap((rule) => {
      const text = input.text(`keep${rule.charAt(0).toUpperCase()}${rule.slice(1)}`);
      if (text === undefined) return [];
      return [[rule, parseWholeNumber(`--keep-${rule}`, text, { min: 0, max: 10_000 })]];
    }),
  );
  return { ...base, ...given };
}

export function selectionText(selection: Policy["selection"]): string {
  const parts = [
    selection.namePattern === undefined ? "" : `name ${selection.namePattern}`,
    ...(selection.providerIds ?? []).map((id) => `provider ${id}`),
    ...(selection.tags ?? []).map((tag) => `tag ${tag}`),
    (selection.vmIds?.length ?? 0) > 0 ? `${selection.vmIds?.length} VM(s)` : "",
  ].filter(Boolean);
  return parts.join(", ") || "none";
}

export function retentionText(retention: Retention): string {
  const parts = keepRules
    .filter((rule) => retention[rule] > 0)
    .map((rule) => `${retention[rule]} ${rule}`);
  return parts.join(", ") || "nothing";
}

function policyFields(policy: Policy): readonly (readonly [string, string])[] {
  const { options } = policy;
  const hooks = (list: typeof options.preCommands): string =>
    list.map(({ where, command }) => `${where}:${JSON.stringify(command)}`).join(" ") || "none";
  return [
    ["name", policy.policyId],
    ["VMs", selectionText(policy.selection)],
    [
      "schedule",
      policy.schedule === undefined ? "on demand" : `${policy.schedule} ${policy.timeZone}`,
    ],
    ["keep", retentionText(policy.retention)],
    ["repository", policy.repositoryId],
    ["strategy", options.strategy],
    ["quiesce", options.quiesce],
    ["excluded disks", options.excludeDisks.join(", ") || "none"],
    ["pre commands", hooks(options.preCommands)],
    ["post commands", hooks(options.postCommands)],
    ["incremental", options.incremental ? "yes" : "no"],
  ];
}
