import { Failure } from "@holdfast/shared/domain/failure";
import type { Context } from "./context.ts";
import type { ExitCode } from "./exit-codes.ts";

/**
 * One command as data: the parser, its help and docs/cli.md all come from it, so that they cannot disagree.
 */
export type CommandDefinition = {
  /** Its words: `provider add`. */
  readonly path: string;
  readonly summary: string;
  /** More than the summary, for the command's own help. */
  readonly description?: string;
  readonly arguments?: readonly ArgumentDefinition[];
  readonly options?: readonly OptionDefinition[];
  /** At least one: help teaches. */
  readonly examples: readonly Example[];
  run(context: Context, input: CommandInput): Promise<ExitCode>;
};

export type ArgumentDefinition = {
  readonly name: string;
  readonly summary: string;
  readonly optional?: boolean;
};

export type OptionDefinition = {
  /** As commander writes it: `--name <name>`, `--start`, `-o, --output <file>`. */
  readonly flags: string;
  readonly summary: string;
  readonly choices?: readonly string[];
  readonly repeatable?: boolean;
  readonly required?: boolean;
};

export type Example = { readonly command: string; readonly explanation: string };

/** Arguments and options of one call, by name; asking for one that the command does not define is a defect. */
export type CommandInput = {
  argument(name: string): string;
  argumentOrNone(name: string): string | undefined;
  text(option: string): string | undefined;
  flag(option: string): boolean;
  /** True when `--no-OPTION` was given. */
  isNegated(option: string): boolean;
  list(option: string): readonly string[];
};

export type RawInput = {
  readonly arguments: Readonly<Record<string, string | undefined>>;
  readonly options: Readonly<Record<string, unknown>>;
};

export function createCommandInput(raw: RawInput): CommandInput {
  const optional = (name: string): string | undefined => {
    if (!Object.hasOwn(raw.arguments, name)) throw new Error(`no argument ${name} is defined`);
    return raw.arguments[name];
  };
  return {
    argumentOrNone: optional,
    argument: (name) => {
      const value = optional(name);
      if (value === undefined)
        throw new Failure("input.invalid", { message: `${name} is missing` });
      return value;
    },
    text: (option) => {
      const value = raw.options[option];
      return typeof value === "string" ? value : undefined;
    },
    flag: (option) => raw.options[option] === true,
    isNegated: (option) => raw.options[option] === false,
    list: (option) => {
      const value = raw.options[option];
      return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
    },
  };
}

/** The options of every command. */
export const globalOptions: readonly OptionDefinition[] = [
  {
    flags: "--json",
    summary: "print JSON: one document, or one line an event while something runs",
  },
  { flags: "--no-input", summary: "never ask; fail where an answer would be needed" },
  { flags: "--quiet", summary: "no progress and no notes; results and errors only" },
  {
    flags: "--profile <name>",
    summary: "connection of the configuration file to use (default: local)",
  },
  {
    flags: "--endpoint <url>",
    summary: "address of the API; wins over HOLDFAST_ENDPOINT and the profile",
  },
  { flags: "--wait", summary: "wait for the job that the command starts (default)" },
  { flags: "--no-wait", summary: "return once the job is accepted" },
  {
    flags: "--timeout <time>",
    summary: "stop waiting after this time (90, 30s, 5m, 2h); the job goes on, exit code 9",
  },
];
