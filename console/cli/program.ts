import { Command, CommanderError, Option } from "commander";
import {
  type CommandDefinition,
  createCommandInput,
  globalOptions,
  type OptionDefinition,
  type RawInput,
} from "./command.ts";
import { commandTable, groupSummaries } from "./command-table.ts";
import type { Context, GlobalSettings } from "./context.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { helpTopics } from "./help-topics.ts";
import { parseTimeMs } from "./parse-values.ts";
import type { TextOutput } from "./render/output.ts";
import { printError } from "./report.ts";

export type ProgramOptions = {
  readonly stdout: TextOutput;
  readonly stderr: TextOutput;
  readonly version: string;
  readonly commands?: readonly CommandDefinition[];
  createContext(settings: GlobalSettings): Context;
};

/**
 * Runs one command line. Never throws for what a user can cause: everything ends in an exit code of the
 * contract, with the error on stderr.
 */
export async function runProgram(
  commandLine: readonly string[],
  options: ProgramOptions,
): Promise<ExitCode> {
  // Known before parsing, so that a parsing error is told in the wanted form.
  const json = commandLine.includes("--json");
  let exitCode: ExitCode = exitCodes.done.code;
  const program = buildProgram(options, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...commandLine], { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? exitCodes.done.code : reportUsage(error, options.stderr, json);
    }
    return printError(error, options.stderr, { json });
  }
}

function reportUsage(error: CommanderError, stderr: TextOutput, json: boolean): ExitCode {
  // A group called without its command has shown its help: that says it all.
  if (error.code === "commander.help") return exitCodes.usage.code;
  const message = error.message.replace(/^error: /, "");
  const advice = "See `holdfast --help`, or the command's own --help with examples.";
  const { code } = exitCodes.usage;
  stderr.write(
    json
      ? `${JSON.stringify({ v: 1, type: "error", id: "HF-INPUT-INVALID", code: "input.invalid", message, causes: [], advice, exitCode: code })}\n`
      : `HF-INPUT-INVALID: ${message}\n  Next:  ${advice}\n`,
  );
  return code;
}

export function buildProgram(
  options: ProgramOptions,
  onExitCode: (code: ExitCode) => void,
): Command {
  const program = new Command("holdfast");
  program
    .description("Agentless backup of virtual machines into deduplicated, encrypted storage.")
    .version(options.version, "--version", "print the version")
    .helpOption("-h, --help", "show help");
  addGlobalOptions(program);
  program.addHelpText("after", rootHelp());
  const groups = new Map<string, Command>([["", program]]);
  for (const definition of options.commands ?? commandTable) {
    addCommand(definition, groups, options, onExitCode);
  }
  addHelpCommand(program, options);
  for (const command of everyCommand(program)) {
    command
      .helpCommand(false)
      .showSuggestionAfterError(true)
      .exitOverride()
      .configureOutput({
        writeOut: (text) => options.stdout.write(text),
        // Errors are written once, in reportUsage; what remains is the help of a group without a command.
        writeErr: (text) => options.stderr.write(text),
        outputError: () => undefined,
        getOutHelpWidth: () => Math.min(options.stdout.columns, 120),
        getErrHelpWidth: () => Math.min(options.stderr.columns, 120),
      });
  }
  return program;
}

function* everyCommand(command: Command): Generator<Command> {
  yield command;
  for (const child of command.commands) yield* everyCommand(child);
}

function addCommand(
  definition: CommandDefinition,
  groups: Map<string, Command>,
  options: ProgramOptions,
  onExitCode: (code: ExitCode) => void,
): void {
  const words = definition.path.split(" ");
  const command = groupOf(words.slice(0, -1), groups).command(words.at(-1) ?? "");
  command
    .summary(definition.summary)
    .description(
      [capitalised(definition.summary), definition.description].filter(Boolean).join("\n\n"),
    )
    .allowExcessArguments(false);
  const argumentDefinitions = definition.arguments ?? [];
  for (const { name, summary, optional } of argumentDefinitions) {
    command.argument(optional ? `[${name}]` : `<${name}>`, summary);
  }
  for (const option of definition.options ?? []) command.addOption(toOption(option));
  addGlobalOptions(command);
  command.addHelpText("after", examplesHelp(definition));
  command.action(async () => {
    const raw: RawInput = {
      arguments: Object.fromEntries(
        argumentDefinitions.map(({ name }, index) => [name, command.args[index]]),
      ),
      options: command.opts(),
    };
    const context = options.createContext(readGlobalSettings(command));
    onExitCode(await definition.run(context, createCommandInput(raw)));
  });
}

function groupOf(words: readonly string[], groups: Map<string, Command>): Command {
  const path = words.join(" ");
  const known = groups.get(path);
  if (known !== undefined) return known;
  const group = groupOf(words.slice(0, -1), groups).command(words.at(-1) ?? "");
  group.description(groupSummaries[path] ?? path);
  groups.set(path, group);
  return group;
}

function toOption({ flags, summary, choices, repeatable, required }: OptionDefinition): Option {
  const option = new Option(flags, summary);
  if (choices !== undefined) option.choices([...choices]);
  if (required) option.makeOptionMandatory();
  if (repeatable) {
    option.argParser((value: string, previous: readonly string[] | undefined) => [
      ...(previous ?? []),
      value,
    ]);
  }
  return option;
}

function addGlobalOptions(command: Command): void {
  for (const definition of globalOptions) {
    // Before and after the command's name alike; the long list is shown once, in the main help.
    command.addOption(toOption(definition).hideHelp(command.parent !== null));
  }
}

function readGlobalSettings(command: Command): GlobalSettings {
  const given: Record<string, unknown> = {};
  const chain: Command[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) chain.unshift(at);
  for (const one of chain) {
    for (const [name, value] of Object.entries(one.opts())) {
      if (one.getOptionValueSource(name) === "cli") given[name] = value;
    }
  }
  const text = (name: string): string | undefined => {
    const value = given[name];
    return typeof value === "string" ? value : undefined;
  };
  const timeout = text("timeout");
  return {
    json: given["json"] === true,
    input: given["input"] !== false,
    quiet: given["quiet"] === true,
    wait: given["wait"] !== false,
    profile: text("profile"),
    endpoint: text("endpoint"),
    timeoutMs: timeout === undefined ? undefined : parseTimeMs("--timeout", timeout),
  };
}

function addHelpCommand(program: Command, { stdout }: ProgramOptions): void {
  program
    .command("help")
    .summary("help on a command or topic")
    .description(
      `Help on a command, or on one of the topics ${helpTopics.map(({ name }) => name).join(", ")}.`,
    )
    .argument("[words...]", "a command or a topic")
    .action((words: string[]) => {
      const topic = helpTopics.find(({ name }) => name === words.join(" "));
      if (topic !== undefined) {
        stdout.write(topic.text());
        return;
      }
      let command = program;
      for (const word of words) {
        const next = command.commands.find((candidate) => candidate.name() === word);
        if (next === undefined) {
          throw new CommanderError(
            2,
            "holdfast.unknownTopic",
            `no command or topic \`${words.join(" ")}\``,
          );
        }
        command = next;
      }
      command.outputHelp();
    });
}

function rootHelp(): string {
  const topics = helpTopics.map(
    ({ name, summary }) => `  holdfast help ${name.padEnd(12)} ${summary}\n`,
  );
  return `
The first five minutes:
  holdfast up                                         start it on this machine
  holdfast provider add libvirt kvm1 --address ssh://root@HOST --identity-file FILE
  holdfast sync                                       see what there is
  holdfast backup VM                                  make a recovery point
  holdfast restore POINT --name VM-check --start      prove that it works

Without a control plane:
  holdfast repository init /srv/backup
  holdfast image backup disk.raw --repository /srv/backup

Topics:
${topics.join("")}`;
}

function examplesHelp({ examples }: CommandDefinition): string {
  const lines = examples.map(({ command, explanation }) => `  ${command}\n      ${explanation}\n`);
  return `\nExamples:\n${lines.join("")}\nOptions of every command (--json, --no-wait, --timeout …): holdfast --help\n`;
}

const capitalised = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
