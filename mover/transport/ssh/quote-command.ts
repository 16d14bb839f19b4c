import { Failure } from "@holdfast/shared/domain/failure";

/** Linux takes 128 KiB for one argument, and the whole line is one argument of the remote shell. */
const commandBytesMax = 120 * 1024;
const variableName = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * The only place where text for a remote shell is made. Every word becomes one single-quoted POSIX shell word, so that
 * the shell passes it on as it is; the program runs under `env` with LC_ALL=C, so that its messages can be relied on.
 * Fails with `input.invalid` for what no argument can hold (NUL, half a surrogate pair) and for what is too long.
 */
export function quoteCommand(
  command: readonly [string, ...string[]],
  environment: Readonly<Record<string, string>> = {},
): string {
  const [program] = command;
  if (program === "" || program.includes("=") || program.startsWith("-")) {
    throw new Failure("input.invalid", {
      message: `${JSON.stringify(program)} cannot be run as a program`,
    });
  }
  const assignments = Object.entries({ LC_ALL: "C", ...environment }).map(([name, value]) => {
    if (variableName.test(name)) return `${name}=${value}`;
    throw new Failure("input.invalid", {
      message: `${JSON.stringify(name)} is no name of an environment variable`,
    });
  });
  const line = ["env", ...assignments, ...command].map(quoteWord).join(" ");
  if (Buffer.byteLength(line) > commandBytesMax) {
    throw new Failure("input.invalid", {
      message: `the command line of ${program} is longer than ${commandBytesMax} bytes; pass the data as its input`,
    });
  }
  return line;
}

export function quoteWord(word: string): string {
  if (word.includes("\0") || !word.isWellFormed()) {
    throw new Failure("input.invalid", {
      message: `${JSON.stringify(word.slice(0, 80))} contains what no command argument can hold`,
    });
  }
  return `'${word.replaceAll("'", "'\\''")}'`;
}
