import { readFile } from "node:fs/promises";
import type { InspectJob } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import type { CommandDefinition, CommandInput } from "../command.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { parseSshAddress, type SshAddress } from "../parse-values.ts";
import { readSecretFile } from "../read-secret.ts";
import { formatAge } from "../render/format.ts";
import { renderTable } from "../render/table.ts";
import { note, printFields, printTable } from "../report.ts";
import { watchJobs } from "../watch-jobs.ts";
import { limitProvider } from "./limits.ts";
import { followJobs, newIdempotencyKey } from "./start-job.ts";

const nameArgument = { name: "name", summary: "name of the provider" };

const add: CommandDefinition = {
  path: "provider add libvirt",
  summary: "add a libvirt/KVM host, reached by SSH",
  description:
    "The host's key is pinned: give it, or compare the fingerprint that is shown. The login's secret is sent once and kept " +
    "encrypted. With no secret option the key ~/.ssh/id_ed25519 is not guessed: say which one.",
  arguments: [{ name: "name", summary: "name for it: lower-case letters, digits and dashes" }],
  options: [
    {
      flags: "--address <url>",
      summary: "ssh://user@host:port (user root, port 22)",
      required: true,
    },
    { flags: "--identity-file <file>", summary: "private key to log in with" },
    { flags: "--password-file <file>", summary: "file with the password to log in with" },
    { flags: "--password-stdin", summary: "read the password from standard input" },
    {
      flags: "--host-key <key>",
      summary: "accepted host key, 'ssh-ed25519 AAAA…'",
      repeatable: true,
    },
    {
      flags: "--host-key-file <file>",
      summary: "accepted host keys, one a line or as in known_hosts",
    },
    { flags: "--accept-host-key", summary: "trust the key that the host presents now" },
    { flags: "--uri <uri>", summary: "libvirt's connection URI on the host (qemu:///system)" },
    { flags: "--scratch <folder>", summary: "folder on the host for overlays and scratch files" },
    { flags: "--site <site>", summary: "site whose movers reach it (local)" },
  ],
  examples: [
    {
      command:
        "holdfast provider add libvirt kvm1 --address ssh://root@kvm1.example.org --identity-file ~/.ssh/id_ed25519",
      explanation: "Shows the host key's fingerprint and asks before it is pinned.",
    },
    {
      command:
        "holdfast provider add libvirt kvm1 --address ssh://root@192.0.2.7 --password-stdin --host-key 'ssh-ed25519 AAAA…' < password",
      explanation: "For scripts: nothing is asked, the key is known beforehand.",
    },
  ],
  run: async (context, input) => {
    const address = parseSshAddress(input.text("address") ?? "");
    const login = await readLogin(context, input);
    const hostKeys = await readHostKeys(context, input, address);
    const api = await context.api();
    const scratchFolder = input.text("scratch");
    const provider = await api.call("addProvider", {
      body: {
        providerId: input.argument("name"),
        siteId: input.text("site") ?? "local",
        settings: {
          kind: "libvirt",
          ssh: { ...address, hostKeys: [...hostKeys], login: login.kind },
          uri: input.text("uri") ?? "qemu:///system",
          ...(scratchFolder === undefined ? {} : { scratchFolder }),
        },
        secret: login.secret,
      },
    });
    printFields(context, provider, [
      ["provider", provider.providerId],
      ["address", addressText(address)],
      ["site", provider.siteId],
    ]);
    note(
      context,
      `Next: holdfast provider test ${provider.providerId}, then holdfast sync ${provider.providerId}`,
    );
    return exitCodes.done.code;
  },
};

const list: CommandDefinition = {
  path: "provider list",
  summary: "list providers",
  examples: [{ command: "holdfast provider list --json", explanation: "As one JSON document." }],
  run: async (context) => {
    const { items } = await (await context.api()).call("listProviders");
    printTable(
      context,
      { items },
      {
        columns: [
          { title: "NAME" },
          { title: "KIND" },
          { title: "ADDRESS" },
          { title: "SITE" },
          { title: "SYNCED" },
          { title: "PROBLEM" },
        ],
        rows: items.map((provider) => [
          provider.providerId,
          provider.settings.kind,
          addressText(provider.settings.ssh),
          provider.siteId,
          formatAge(provider.lastSyncAt, context.clock.now()),
          provider.lastSyncError ?? "",
        ]),
        empty:
          "No providers yet. Add one: holdfast provider add libvirt NAME --address ssh://root@HOST --identity-file FILE",
      },
    );
    return exitCodes.done.code;
  },
};

const test: CommandDefinition = {
  path: "provider test",
  summary: "check login, versions, rights and tools of a provider",
  arguments: [nameArgument],
  examples: [
    {
      command: "holdfast provider test kvm1",
      explanation: "One line a check, with what to do about it.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const job = await api.call("testProvider", {
      id: input.argument("name"),
      idempotencyKey: newIdempotencyKey(context),
    });
    if (!context.settings.wait) return await followJobs(context, api, [job]);
    const exitCode = await watchJobs(context, api, [job.jobId]);
    if (context.settings.json || exitCode === exitCodes.stoppedWaiting.code) return exitCode;
    const { job: ended } = await api.call("getJob", { id: job.jobId });
    if (ended.kind !== "inspect") return exitCode;
    context.stdout.write(findingsTable(ended, context.stdout.isTerminal));
    const hasFailed = ended.findings?.some(({ state }) => state === "failed") ?? false;
    // To the job a failed check is a finding; to the one who asked for the test it is the answer.
    return hasFailed ? exitCodes.failed.code : exitCode;
  },
};

const remove: CommandDefinition = {
  path: "provider remove",
  summary: "remove a provider; its recovery points stay in the repository",
  arguments: [nameArgument],
  options: [{ flags: "--force", summary: "also while its VMs have recovery points" }],
  examples: [
    {
      command: "holdfast provider remove kvm1",
      explanation: "Refused while VMs of it have points.",
    },
  ],
  run: async (context, input) => {
    const name = input.argument("name");
    const query = input.flag("force") ? { force: "true" as const } : {};
    await (await context.api()).call("removeProvider", { id: name, query });
    printFields(context, { removed: name }, [["removed", name]]);
    return exitCodes.done.code;
  },
};

const sync: CommandDefinition = {
  path: "sync",
  summary: "read the inventory of one provider, or of all",
  arguments: [
    { name: "provider", summary: "name of the provider; all when left out", optional: true },
  ],
  examples: [
    {
      command: "holdfast sync",
      explanation: "After that `holdfast vm list` shows what there is now.",
    },
  ],
  run: async (context, input) => {
    const api = await context.api();
    const one = input.argumentOrNone("provider");
    const names =
      one === undefined
        ? (await api.call("listProviders")).items.map(({ providerId }) => providerId)
        : [one];
    if (names.length === 0) {
      throw new Failure("not-found", {
        message: "there are no providers; add one with `holdfast provider add libvirt`",
      });
    }
    const jobs = [];
    for (const id of names) {
      jobs.push(await api.call("syncProvider", { id, idempotencyKey: newIdempotencyKey(context) }));
    }
    return await followJobs(context, api, jobs);
  },
};

export const providerCommands: readonly CommandDefinition[] = [
  add,
  list,
  test,
  limitProvider,
  remove,
  sync,
];

function addressText({ user, host, port }: SshAddress): string {
  return `ssh://${user}@${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function findingsTable(job: InspectJob, forPeople: boolean): string {
  const rows = (job.findings ?? []).map(({ check, state, message, remedy }) => [
    state,
    check,
    remedy === undefined ? message : `${message} Remedy: ${remedy}`,
  ]);
  return renderTable(
    { columns: [{ title: "STATE" }, { title: "CHECK" }, { title: "FINDING" }], rows },
    { forPeople },
  );
}

type Login = { readonly kind: "key" | "password"; readonly secret: string };

async function readLogin(context: Context, input: CommandInput): Promise<Login> {
  const identityFile = input.text("identityFile");
  const passwordFile = input.text("passwordFile");
  const fromStdin = input.flag("passwordStdin");
  const given = [identityFile !== undefined, passwordFile !== undefined, fromStdin].filter(Boolean);
  if (given.length > 1) {
    throw new Failure("input.invalid", {
      message: "give one of --identity-file, --password-file and --password-stdin",
    });
  }
  if (identityFile !== undefined) {
    // A key keeps its line endings: OpenSSH's form needs the last one.
    const secret = `${await readSecretFile("--identity-file", identityFile)}\n`;
    if (!secret.includes("PRIVATE KEY")) {
      throw new Failure("input.invalid", {
        message: `--identity-file: ${identityFile} holds no private key`,
      });
    }
    return { kind: "key", secret };
  }
  if (passwordFile !== undefined) {
    return { kind: "password", secret: await readSecretFile("--password-file", passwordFile) };
  }
  if (fromStdin) {
    return { kind: "password", secret: await readSecretFile("--password-stdin", "/dev/stdin") };
  }
  const instead = "--identity-file, --password-file or --password-stdin";
  return { kind: "password", secret: await context.prompt.secret("Password", instead) };
}

const keyPattern = /(?:^|\s)((?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3})(?:\s|$)/;

/** Keys in OpenSSH's form; lines of known_hosts are accepted as well, comments skipped. */
export function parseHostKeys(option: string, text: string): readonly string[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
  const keys = lines.map((line) => keyPattern.exec(line)?.[1]);
  if (keys.length === 0 || keys.includes(undefined)) {
    throw new Failure("input.invalid", {
      message: `${option} is not of the form 'ssh-ed25519 AAAA…'`,
    });
  }
  return keys.filter((key) => key !== undefined);
}

async function readHostKeys(
  context: Context,
  input: CommandInput,
  { host, port }: SshAddress,
): Promise<readonly string[]> {
  const given = input.list("hostKey").flatMap((key) => parseHostKeys("--host-key", key));
  const file = input.text("hostKeyFile");
  if (file !== undefined) {
    const text = await readFile(file, "utf8").catch((error: unknown) => {
      throw new Failure("input.invalid", {
        message: `--host-key-file: ${file} cannot be read`,
        cause: error,
      });
    });
    given.push(...parseHostKeys(`--host-key-file ${file}`, text));
  }
  if (given.length > 0) return given;
  const { hostKeys } = await context.mover.run({ kind: "fetch-host-keys", host, port }, {});
  const keys = hostKeys.map(({ key }) => key);
  const shown = hostKeys
    .map(({ key, fingerprint }) => `  ${key.split(" ")[0]} ${fingerprint}`)
    .join("\n");
  if (input.flag("acceptHostKey")) {
    note(context, `Pinned as the key of ${host} port ${port}:\n${shown}`);
    return keys;
  }
  if (context.prompt.canAsk) {
    note(
      context,
      `${host} port ${port} presents:\n${shown}\nCompare with, on that host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`,
    );
    if (await context.prompt.confirm("Is this the host's key?")) return keys;
  }
  throw new Failure("host.key-unknown", {
    message: `${host} port ${port} presents a key that is not pinned:\n${shown}\nTo trust it, repeat the command with --accept-host-key`,
  });
}
