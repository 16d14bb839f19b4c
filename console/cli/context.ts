import type { Clock } from "@holdfast/shared/ports/clock";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import type { ApiClient } from "./api-client.ts";
import type { MoverProcess } from "./mover-process.ts";
import type { Profiles } from "./profiles.ts";
import type { Prompt } from "./prompt.ts";
import type { TextOutput } from "./render/output.ts";

/** Everything a command may touch. Built in main.ts, and by tests. */
export type Context = {
  readonly stdout: TextOutput;
  readonly stderr: TextOutput;
  readonly environment: Environment;
  readonly settings: GlobalSettings;
  readonly profileName: string;
  readonly profiles: Profiles;
  readonly prompt: Prompt;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly mover: MoverProcess;
  /** The local stack is started by path, never imported. */
  readonly localStackEntryPath: string;
  /** Fails with advice when no endpoint or token is known. */
  api(): Promise<ApiClient>;
  /** Calls back on every Ctrl-C or SIGTERM until disposed; without a handler these end the process. */
  onInterrupt(handler: () => void): Disposable;
};

export type Environment = Readonly<Record<string, string | undefined>>;

/** The options that every command has. */
export type GlobalSettings = {
  readonly json: boolean;
  readonly input: boolean;
  readonly quiet: boolean;
  readonly profile: string | undefined;
  readonly endpoint: string | undefined;
  readonly wait: boolean;
  /** How long to wait for a job; undefined: until it ends. */
  readonly timeoutMs: number | undefined;
};
