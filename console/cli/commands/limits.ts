import { resolve } from "node:path";
import type { RateLimits } from "@holdfast/shared/contracts/catalog-items";
import type { StandaloneRequest } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import { parseRate, type Rate } from "@holdfast/shared/domain/rate";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { formatBytes } from "../render/format.ts";
import { note, printFields } from "../report.ts";

const toAndFrom: readonly OptionDefinition[] = [
  { flags: "--limit-upload <rate>", summary: "to the repository, 20M for 20 MiB a second" },
  { flags: "--limit-download <rate>", summary: "from the repository" },
];
const fromFile: OptionDefinition = {
  flags: "--limits-file <file>",
  summary:
    'limits as JSON, { "upload": "20M", "storeRequests": 100 }; followed while the command runs',
};

/** For commands that work on a repository and no disk. */
export const storeLimitOptions: readonly OptionDefinition[] = [...toAndFrom, fromFile];

/** For commands that move data themselves. */
export const limitOptions: readonly OptionDefinition[] = [
  ...toAndFrom,
  { flags: "--limit-read <rate>", summary: "from disks" },
  { flags: "--limit-write <rate>", summary: "to disks" },
  fromFile,
];

type Limits = NonNullable<(StandaloneRequest & { readonly kind: "image-backup" })["limits"]>;

/** What `storeLimitOptions` were given, for a request to the mover. */
export function readStoreLimits(input: CommandInput): { readonly limits?: Limits } {
  return limitsOf(storeLimitsOf(input));
}

/** What `limitOptions` were given, for a request to the mover. */
export function readLimits(input: CommandInput): { readonly limits?: Limits } {
  return limitsOf({
    ...storeLimitsOf(input),
    ...rateOf(input, "limitRead", "--limit-read", "read"),
    ...rateOf(input, "limitWrite", "--limit-write", "write"),
  });
}

function storeLimitsOf(input: CommandInput): Limits {
  const file = input.text("limitsFile");
  return {
    ...rateOf(input, "limitUpload", "--limit-upload", "upload"),
    ...rateOf(input, "limitDownload", "--limit-download", "download"),
    ...(file === undefined ? {} : { file: resolve(file) }),
  };
}

function limitsOf(limits: Limits): { readonly limits?: Limits } {
  return Object.keys(limits).length === 0 ? {} : { limits };
}

function rateOf(
  input: CommandInput,
  option: string,
  flag: string,
  field: Exclude<keyof Limits, "file">,
): Partial<Record<Exclude<keyof Limits, "file">, Rate>> {
  const text = input.text(option);
  return text === undefined ? {} : { [field]: parseRate(flag, text) };
}

const requestsOption: OptionDefinition = {
  flags: "--requests <number>",
  summary: "calls a second, or off",
};

export const limitRepository: CommandDefinition = {
  path: "repository limit",
  summary: "show or change how much each mover may move to and from a repository",
  description:
    "A limit that is not named stays as it is. Running jobs follow within some seconds. A limit of 0 lets nothing pass: what needs it " +
    "fails. Objects pass whole and are waited for, so the rate holds over seconds, not milliseconds.",
  arguments: [{ name: "name", summary: "name of the repository" }],
  options: [
    { flags: "--upload <rate>", summary: "20M for 20 MiB a second, or off" },
    { flags: "--download <rate>", summary: "the same for reading" },
    requestsOption,
  ],
  examples: [
    {
      command: "holdfast repository limit offsite --upload 20M --download off",
      explanation: "At working hours; `--upload off` in the evening.",
    },
  ],
  run: async (context, input) => {
    const id = input.argument("name");
    const api = await context.api();
    const { items } = await api.call("listRepositories");
    const known = items.find(({ repositoryId }) => repositoryId === id);
    if (known === undefined) {
      throw new Failure("not-found", { message: `there is no repository ${JSON.stringify(id)}` });
    }
    const changed = changeLimits(known.limits, {
      readBytesPerSecond: input.text("download"),
      writeBytesPerSecond: input.text("upload"),
      requestsPerSecond: input.text("requests"),
    });
    const item =
      changed === undefined ? known : await api.call("limitRepository", { id, body: changed });
    printFields(context, item, [
      ["repository", id],
      ["upload", rateText(item.limits?.writeBytesPerSecond, formatBytes)],
      ["download", rateText(item.limits?.readBytesPerSecond, formatBytes)],
      ["requests", rateText(item.limits?.requestsPerSecond, String)],
    ]);
    if (changed !== undefined) note(context, "Movers follow within some seconds.");
    return exitCodes.done.code;
  },
};

export const limitProvider: CommandDefinition = {
  path: "provider limit",
  summary: "show or change how much each mover may read and write on a provider's disks",
  description:
    "A limit that is not named stays as it is. Running jobs follow within some seconds. A limit of 0 lets nothing pass: what needs it fails.",
  arguments: [{ name: "name", summary: "name of the provider" }],
  options: [
    { flags: "--read <rate>", summary: "backups: 100M for 100 MiB a second, or off" },
    { flags: "--write <rate>", summary: "restores" },
    requestsOption,
  ],
  examples: [
    {
      command: "holdfast provider limit kvm1 --read 200M --requests 500",
      explanation: "So that guests feel backups less.",
    },
  ],
  run: async (context, input) => {
    const id = input.argument("name");
    const api = await context.api();
    const known = await api.call("getProvider", { id });
    const changed = changeLimits(known.limits, {
      readBytesPerSecond: input.text("read"),
      writeBytesPerSecond: input.text("write"),
      requestsPerSecond: input.text("requests"),
    });
    const item =
      changed === undefined ? known : await api.call("limitProvider", { id, body: changed });
    printFields(context, item, [
      ["provider", id],
      ["read", rateText(item.limits?.readBytesPerSecond, formatBytes)],
      ["write", rateText(item.limits?.writeBytesPerSecond, formatBytes)],
      ["requests", rateText(item.limits?.requestsPerSecond, String)],
    ]);
    if (changed !== undefined) note(context, "Movers follow within some seconds.");
    return exitCodes.done.code;
  },
};

/** Undefined when nothing was to be changed. */
function changeLimits(
  known: RateLimits | undefined,
  wanted: { readonly [Name in keyof RateLimits]-?: string | undefined },
): RateLimits | undefined {
  const limits: { -readonly [Name in keyof RateLimits]: RateLimits[Name] } = { ...known };
  let isChanged = false;
  for (const [name, flag] of [
    ["readBytesPerSecond", "the rate"],
    ["writeBytesPerSecond", "the rate"],
    ["requestsPerSecond", "--requests"],
  ] as const) {
    const text = wanted[name];
    if (text === undefined) continue;
    const rate = parseRate(flag, text);
    isChanged = true;
    delete limits[name];
    if (rate !== "off") limits[name] = rate;
  }
  return isChanged ? limits : undefined;
}

function rateText(rate: number | undefined, format: (rate: number) => string): string {
  if (rate === undefined) return "off";
  return rate === 0 ? "0: nothing may pass" : `${format(rate)}/s`;
}
