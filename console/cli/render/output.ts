/** Where text goes: stdout or stderr of this process, or a buffer in tests. */
export type TextOutput = {
  write(text: string): void;
  readonly isTerminal: boolean;
  /** Width of the terminal in characters; 80 where that is unknown. */
  readonly columns: number;
};
