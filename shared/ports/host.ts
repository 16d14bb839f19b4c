import type { Duplex } from "node:stream";

/** A connection to one machine on which commands are run: over SSH, or this machine itself. */
export interface HostConnection extends AsyncDisposable {
  /** For messages: `ssh://root@host:22` or `local`. */
  readonly name: string;
  /**
   * Runs one command given as an argument vector; the connection quotes it, callers never build shell text.
   * Does not fail on a non-zero exit. Fails with `network.timeout`, `network.unreachable`, or
   * `host.output-invalid` when the output exceeds `outputBytesMax` (default 8 MiB).
   */
  run(command: readonly [string, ...string[]], options?: RunOptions): Promise<CommandResult>;
  /** A byte stream to a Unix socket on that machine. */
  openUnixSocket(path: string, options?: { readonly signal?: AbortSignal }): Promise<Duplex>;
  /** A byte stream to a TCP port as reached from that machine. */
  openTcpSocket(
    address: { readonly host: string; readonly port: number },
    options?: { readonly signal?: AbortSignal },
  ): Promise<Duplex>;
}

export type RunOptions = {
  readonly input?: string | Uint8Array;
  readonly environment?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Default 60 000. */
  readonly timeoutMs?: number;
  readonly outputBytesMax?: number;
};

export type CommandResult = {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
};
