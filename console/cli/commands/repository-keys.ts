import type { KeyOfRepository, KeysResult } from "@holdfast/shared/contracts/repository-keys";
import type { StandaloneRequest } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import { renderUnicodeCompact } from "uqr";
import type { CommandDefinition, CommandInput, OptionDefinition } from "../command.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { readPassphrase, readSecretFile } from "../read-secret.ts";
import { formatAge, printable } from "../render/format.ts";
import { renderTable } from "../render/table.ts";
import { note, printResult } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

type Action = Extract<StandaloneRequest, { readonly kind: "repository-keys" }>["action"];

const url = { name: "url", summary: "a directory or s3://bucket/prefix" };
const passphrase: OptionDefinition = {
  flags: "--passphrase-file <file>",
  summary:
    "file with a key that opens it: a passphrase, the words of a recovery key, or aws:kms (else HOLDFAST_PASSPHRASE, else a question)",
};
const label: OptionDefinition = { flags: "--label <text>", summary: "name for people" };

const list: CommandDefinition = {
  path: "repository keys list",
  summary: "list the keys that open a repository; secrets are never shown",
  description:
    "A key is a passphrase, a recovery key or a key of AWS KMS. Each opens all of the repository alone. One that takes no part in the newest key " +
    "epoch (`old data only`) was left out of a rotation.",
  arguments: [url],
  options: [passphrase],
  examples: [
    { command: "holdfast repository keys list /srv/backup", explanation: "Who can open it." },
  ],
  run: async (context, input) => await perform(context, input, { do: "list" }),
};

const add: CommandDefinition = {
  path: "repository keys add",
  summary: "let one more passphrase or key of AWS KMS open a repository",
  description:
    "It opens everything, also what is stored already: nothing is sealed again. With a KMS key, whoever may call kms:Decrypt with it opens the repository by " +
    "giving aws:kms in place of the passphrase, and the repository's id is in every entry of CloudTrail.",
  arguments: [url],
  options: [
    passphrase,
    {
      flags: "--new-passphrase-file <file>",
      summary: "file with the new passphrase (else a question, twice)",
    },
    { flags: "--kms-key <arn>", summary: "a key of AWS KMS instead of a passphrase" },
    label,
  ],
  examples: [
    {
      command: "holdfast repository keys add /srv/backup --label office",
      explanation: "Asks for a passphrase that opens it, then twice for the new one.",
    },
    {
      command:
        "holdfast repository keys add s3://backups/lab --kms-key arn:aws:kms:eu-central-1:123456789012:key/1234abcd",
      explanation: "Then movers whose role may decrypt need no passphrase.",
    },
  ],
  run: async (context, input) => {
    const keyArn = input.text("kmsKey");
    const named = input.text("label") ?? "";
    if (keyArn !== undefined) {
      return await perform(context, input, { do: "add-kms", keyArn, label: named });
    }
    const opening = await readOpening(context, input);
    const newPassphrase = await readNewPassphrase(context, input.text("newPassphraseFile"));
    const action: Action = { do: "add-passphrase", newPassphrase, label: named };
    return await perform(context, input, action, opening);
  },
};

const recoveryKey: CommandDefinition = {
  path: "repository keys recovery-key",
  summary: "make a recovery key and print its 24 words, once",
  description:
    "256 random bits as 24 words with a checksum, and as a QR code on a terminal: to be kept on paper, away from the passphrase. They can be given wherever " +
    "the passphrase is asked for. They are stored nowhere and cannot be shown again.",
  arguments: [url],
  options: [passphrase, label],
  examples: [
    {
      command: "holdfast repository keys recovery-key /srv/backup",
      explanation: "A second, independent way in: do this for every repository.",
    },
  ],
  run: async (context, input) => {
    const action: Action = {
      do: "add-recovery-key",
      label: input.text("label") ?? "recovery key",
    };
    return await perform(context, input, action);
  },
};

const remove: CommandDefinition = {
  path: "repository keys remove",
  summary: "take a key's right to open a repository away",
  description:
    "The key that the command itself opens with stays: it has shown that it works. Somebody who knows the removed secret and kept a copy of its object still opens what " +
    "is stored so far; `holdfast repository keys rotate` shuts him out of everything new.",
  arguments: [url, { name: "id", summary: "the key's id, or its first eight digits or more" }],
  options: [passphrase, { flags: "--confirm", summary: "do it; without this nothing is removed" }],
  examples: [
    {
      command: "holdfast repository keys remove /srv/backup 1f3a90c2 --confirm",
      explanation: "Then rotate, if its secret may be in wrong hands.",
    },
  ],
  run: async (context, input) => {
    if (!input.flag("confirm")) {
      throw new Failure("input.invalid", {
        message: "removing a key cannot be undone: give --confirm",
      });
    }
    return await perform(context, input, { do: "remove", id: input.argument("id") });
  },
};

const rotate: CommandDefinition = {
  path: "repository keys rotate",
  summary: "begin a new key epoch: a new master key for all that is stored from now on",
  description:
    "All keys of the newest epoch go on opening everything; none of their secrets is needed but the one given. The list shows who takes part: compare it with whom " +
    "you know, because somebody who had a key and could write may have added one. --only leaves out all others. What is stored already stays as it is.",
  arguments: [url],
  options: [
    passphrase,
    {
      flags: "--only <id>",
      summary: "only this key takes part; may be repeated, and must name the one that is given",
      repeatable: true,
    },
  ],
  examples: [
    {
      command: "holdfast repository keys rotate /srv/backup",
      explanation: "After a key was removed; movers use the new epoch from their next task on.",
    },
    {
      command: "holdfast repository keys rotate /srv/backup --only 1f3a90c2 --only 77ab0312",
      explanation: "After a theft: these two and nobody else.",
    },
  ],
  run: async (context, input) => {
    const only = input.list("only");
    const action: Action = { do: "rotate", ...(only.length === 0 ? {} : { only: [...only] }) };
    return await perform(context, input, action);
  },
};

const check: CommandDefinition = {
  path: "repository keys check",
  summary: "open every key epoch with every key that is given",
  description:
    "Shows that a key on paper or in a safe still works, without restoring anything. A key that does not open everything is exit code 8.",
  arguments: [url],
  options: [
    passphrase,
    {
      flags: "--also <file>",
      summary: "file with another key, in the same forms; may be repeated",
      repeatable: true,
    },
  ],
  examples: [
    {
      command: "holdfast repository keys check /srv/backup --also words.txt",
      explanation: "The passphrase and the recovery key.",
    },
  ],
  run: async (context, input) => {
    const passphraseGiven = await readOpening(context, input);
    const others: string[] = [];
    for (const file of input.list("also")) others.push(await readSecretFile("--also", file));
    const action: Action = { do: "check", others };
    const result = await ask(context, input, action, passphraseGiven);
    const opened = result.opened ?? [];
    show(context, result, (forPeople) =>
      renderTable(
        {
          columns: [{ title: "GIVEN" }, { title: "OPENS" }],
          rows: opened.map((ids, at) => [
            at === 0 ? "the first key" : (input.list("also")[at - 1] ?? ""),
            ids.length === 0 ? "NOTHING, or not everything" : ids.join(" "),
          ]),
        },
        { forPeople },
      ),
    );
    const isAll = opened.every((ids) => ids.length > 0);
    return isAll ? exitCodes.done.code : exitCodes.verification.code;
  },
};

export const keyCommands: readonly CommandDefinition[] = [
  list,
  add,
  recoveryKey,
  remove,
  rotate,
  check,
];

/** For a person at a terminal; a QR code spares typing where a camera reads it. */
export function showRecoveryKey(context: Context, words: string): void {
  const { stdout } = context;
  const lines = words.split(" ").map((word, at) => `${String(at + 1).padStart(2)} ${word}`);
  const rows = Array.from({ length: 6 }, (_, row) =>
    lines
      .filter((_line, at) => at % 6 === row)
      .map((line) => line.padEnd(14))
      .join("")
      .trimEnd(),
  );
  stdout.write(
    stdout.isTerminal ? `${rows.join("\n")}\n\n${renderUnicodeCompact(words)}\n` : `${words}\n`,
  );
  note(context, "Keep these words on paper. They open the repository and are not shown again.");
}

async function perform(
  context: Context,
  input: CommandInput,
  action: Action,
  opening?: string,
): Promise<typeof exitCodes.done.code> {
  const result = await ask(context, input, action, opening);
  const { words } = result;
  if (words !== undefined && !context.settings.json) {
    showRecoveryKey(context, words);
    warn(context, result);
  } else {
    show(context, result, (forPeople) => renderKeys(context, result.keys, forPeople));
  }
  return exitCodes.done.code;
}

async function ask(
  context: Context,
  input: CommandInput,
  action: Action,
  opening?: string,
): Promise<KeysResult> {
  const request = {
    kind: "repository-keys" as const,
    url: repositoryUrl(input.argument("url")),
    passphrase: opening ?? (await readOpening(context, input)),
    action,
  };
  return await context.mover.run(request, {});
}

function show(context: Context, result: KeysResult, text: (forPeople: boolean) => string): void {
  printResult(context, result, text);
  warn(context, result);
}

function warn(context: Context, result: KeysResult): void {
  for (const text of result.warnings) note(context, `Warning: ${printable(text)}`);
  for (const { object, reason } of result.findings) {
    note(context, `Ignored: ${printable(object)}: ${printable(reason)}`);
  }
}

function renderKeys(
  context: Context,
  keys: readonly KeyOfRepository[],
  forPeople: boolean,
): string {
  return renderTable(
    {
      columns: [
        { title: "ID" },
        { title: "KIND" },
        { title: "LABEL" },
        { title: "ADDED" },
        { title: "EPOCHS" },
        { title: "OPENS" },
      ],
      rows: keys.map((key) => [
        key.id,
        key.kind,
        key.keyArn === undefined ? key.label : `${key.label} ${key.keyArn}`.trim(),
        formatAge(key.createdAt, context.clock.now()),
        key.epochs.join(" "),
        `${key.isComplete ? "all" : "old data only"}${key.isOpen ? ", given now" : ""}`,
      ]),
    },
    { forPeople },
  );
}

async function readOpening(context: Context, input: CommandInput): Promise<string> {
  return await readPassphrase(context, { file: input.text("passphraseFile") });
}

/** Never from HOLDFAST_PASSPHRASE: that is the one which opens. */
async function readNewPassphrase(context: Context, file: string | undefined): Promise<string> {
  if (file !== undefined) return await readSecretFile("--new-passphrase-file", file);
  const instead = "--new-passphrase-file";
  const text = await context.prompt.secret("New passphrase", instead);
  if (text === "") throw new Failure("input.invalid", { message: "the passphrase is empty" });
  if ((await context.prompt.secret("Once more", instead)) === text) return text;
  throw new Failure("input.invalid", { message: "the two passphrases differ" });
}
