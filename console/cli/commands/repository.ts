import type { CommandDefinition } from "../command.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase } from "../read-secret.ts";
import { formatAge, printable } from "../render/format.ts";
import { note, printFields, printTable } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";
import { collectRepository } from "./collect-repository.ts";
import { compactRepository } from "./compact-repository.ts";
import { copyRepository } from "./copy-repository.ts";
import { doctorRepository } from "./doctor.ts";
import { importRepository } from "./import-repository.ts";
import { limitRepository } from "./limits.ts";
import { extendRepositoryLocks, parseLock } from "./object-lock.ts";
import { rebuildRepository } from "./rebuild-repository.ts";
import { recoverRepository } from "./recover-repository.ts";
import { repairRepository } from "./repair-repository.ts";
import { keyCommands, showRecoveryKey } from "./repository-keys.ts";
import { showRepositoryStats } from "./stats-repository.ts";
import { verifyRepository } from "./verify-repository.ts";

const passphraseOption = {
  flags: "--passphrase-file <file>",
  summary: "file with the passphrase (else HOLDFAST_PASSPHRASE, else a question)",
};

const init: CommandDefinition = {
  path: "repository init",
  summary: "create a repository, without a control plane",
  description:
    "Everything in it is encrypted under keys that the passphrase wraps. Who loses the passphrase loses the data, unless there is " +
    "another key: see `holdfast repository keys`.",
  arguments: [
    {
      name: "url",
      summary:
        "a directory or s3://bucket/prefix (endpoint and credentials by the AWS SDK's variables)",
    },
  ],
  options: [
    passphraseOption,
    {
      flags: "--recovery-key",
      summary: "make a recovery key as well and print its words, once",
    },
    {
      flags: "--lock <days>",
      summary: "let the bucket's Object Lock keep what is stored for so many days, as 30d",
    },
    {
      flags: "--lock-mode <mode>",
      summary:
        "compliance: nobody can lift a lock; governance: a right of the store can (default: compliance)",
    },
  ],
  examples: [
    {
      command: "holdfast repository init /srv/backup",
      explanation: "Asks for the passphrase twice.",
    },
    {
      command:
        "AWS_ENDPOINT_URL_S3=https://s3.example.org holdfast repository init s3://backups/lab --passphrase-file key",
      explanation: "On any S3-compatible store.",
    },
  ],
  run: async (context, input) => {
    const url = repositoryUrl(input.argument("url"));
    const passphrase = await readPassphrase(context, {
      file: input.text("passphraseFile"),
      isNew: true,
    });
    const lock = parseLock(input.text("lock"), input.text("lockMode"));
    const created = await context.mover.run(
      { kind: "repository-init", url, passphrase, ...(lock && { lock }) },
      { onWarning: (message) => note(context, `warning: ${printable(message)}`) },
    );
    const isKeyWanted =
      input.flag("recoveryKey") ||
      (await context.prompt.confirm("Make a recovery key, to be printed and kept on paper?"));
    const paper = isKeyWanted
      ? await context.mover.run(
          {
            kind: "repository-keys",
            url,
            passphrase,
            action: { do: "add-recovery-key", label: "recovery key" },
          },
          {},
        )
      : undefined;
    const words = paper?.words;
    printFields(context, { ...created, ...(words && { words }) }, [
      ["repository", created.repositoryId],
      ["url", created.url],
    ]);
    if (words !== undefined && !context.settings.json) showRecoveryKey(context, words);
    note(
      context,
      `Keep the passphrase in a safe place; without it nothing can be restored.\nNext: holdfast image backup SOURCE --repository ${created.url}`,
    );
    return exitCodes.done.code;
  },
};

const add: CommandDefinition = {
  path: "repository add",
  summary: "make a repository known to the control plane",
  arguments: [
    { name: "name", summary: "name for it: lower-case letters, digits and dashes" },
    { name: "url", summary: "a directory or s3://bucket/prefix, as the movers see it" },
  ],
  options: [
    passphraseOption,
    { flags: "--create", summary: "create it first; without this it must exist" },
  ],
  examples: [
    {
      command: "holdfast repository add offsite s3://backups/lab --create",
      explanation: "Created from this machine, then added.",
    },
  ],
  run: async (context, input) => {
    const url = repositoryUrl(input.argument("url"));
    const api = await context.api();
    const isNew = input.flag("create");
    const passphrase = await readPassphrase(context, { file: input.text("passphraseFile"), isNew });
    if (isNew) await context.mover.run({ kind: "repository-init", url, passphrase }, {});
    const added = await api.call("addRepository", {
      body: { repositoryId: input.argument("name"), url, passphrase },
    });
    printFields(context, added, [
      ["repository", added.repositoryId],
      ["url", added.url],
    ]);
    return exitCodes.done.code;
  },
};

const list: CommandDefinition = {
  path: "repository list",
  summary: "list the repositories that the control plane knows",
  examples: [
    {
      command: "holdfast repository list",
      explanation: "Names for `--repository` of backup and policy.",
    },
  ],
  run: async (context) => {
    const { items } = await (await context.api()).call("listRepositories");
    printTable(
      context,
      { items },
      {
        columns: [{ title: "NAME" }, { title: "URL" }, { title: "ADDED" }],
        rows: items.map(({ repositoryId, url, createdAt }) => [
          repositoryId,
          url,
          formatAge(createdAt, context.clock.now()),
        ]),
        empty: "No repositories yet. Add one: holdfast repository add NAME URL --create",
      },
    );
    return exitCodes.done.code;
  },
};

export const repositoryCommands: readonly CommandDefinition[] = [
  init,
  add,
  list,
  limitRepository,
  verifyRepository,
  repairRepository,
  doctorRepository,
  recoverRepository,
  extendRepositoryLocks,
  collectRepository,
  compactRepository,
  ...keyCommands,
  showRepositoryStats,
  copyRepository,
  rebuildRepository,
  importRepository,
];
