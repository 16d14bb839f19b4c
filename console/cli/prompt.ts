import { Failure } from "@holdfast/shared/domain/failure";
import type { TextOutput } from "./render/output.ts";

/** Questions to the person at the terminal. */
export type Prompt = {
  /** False in pipes and with --no-input: then asking fails, naming the option that answers. */
  readonly canAsk: boolean;
  /** Nothing of the answer is shown. */
  secret(question: string, insteadUse: string): Promise<string>;
  /** Anything but `y` or `yes` is no. */
  confirm(question: string): Promise<boolean>;
};

/** The part of process.stdin that is needed here. */
export type TerminalInput = {
  readonly isTTY?: boolean;
  setRawMode?(enabled: boolean): unknown;
  on(event: "data", listener: (data: Buffer | string) => void): unknown;
  on(event: "end", listener: () => void): unknown;
  off(event: "data", listener: (data: Buffer | string) => void): unknown;
  off(event: "end", listener: () => void): unknown;
  resume(): unknown;
  pause(): unknown;
};

export function createPrompt(
  input: TerminalInput,
  output: TextOutput,
  options: { readonly allowed: boolean },
): Prompt {
  const canAsk = options.allowed && input.isTTY === true && output.isTerminal;
  return {
    canAsk,
    secret: async (question, insteadUse) => {
      if (!canAsk) {
        throw new Failure("input.invalid", {
          message: `${question}: no terminal to ask at; use ${insteadUse}`,
        });
      }
      return await readLine(input, output, { question: `${question}: `, isShown: false });
    },
    confirm: async (question) => {
      if (!canAsk) return false;
      const answer = await readLine(input, output, {
        question: `${question} [y/N] `,
        isShown: true,
      });
      return /^y(es)?$/i.test(answer.trim());
    },
  };
}

/** Reads in raw mode, so that the terminal echoes nothing by itself. Ctrl-C is `cancelled`. */
function readLine(
  input: TerminalInput,
  output: TextOutput,
  { question, isShown }: { readonly question: string; readonly isShown: boolean },
): Promise<string> {
  return new Promise((resolve, reject) => {
    let line: string[] = [];
    const finish = (end: () => void): void => {
      input.off("data", onData);
      input.off("end", onEnd);
      input.setRawMode?.(false);
      input.pause();
      output.write("\n");
      end();
    };
    const cancel = (): void =>
      finish(() => reject(new Failure("cancelled", { message: "cancelled at the prompt" })));
    const onEnd = cancel;
    const onData = (data: Buffer | string): void => {
      for (const character of data.toString()) {
        if (character === "\r" || character === "\n") {
          finish(() => resolve(line.join("")));
          return;
        }
        if (character === "\u0003" || (character === "\u0004" && line.length === 0)) {
          cancel();
          return;
        }
        if (character === "\u007f" || character === "\b") {
          if (isShown && line.length > 0) output.write("\b \b");
          line = line.slice(0, -1);
        } else if (character >= " ") {
          line.push(character);
          if (isShown) output.write(character);
        }
      }
    };
    // Before the question: a quick answer must not be echoed.
    input.setRawMode?.(true);
    output.write(question);
    input.on("data", onData);
    input.on("end", onEnd);
    input.resume();
  });
}
