import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { createApiClient } from "./api-client.ts";
import type { Context, GlobalSettings } from "./context.ts";
import { createProfiles } from "./profiles.ts";
import { runProgram } from "./program.ts";
import type { TextOutput } from "./render/output.ts";

/** For tests only: the CLI with buffers for a terminal, a clock that jumps, and a scripted API. */
export type BufferedOutput = TextOutput & { text(): string };

export function createBufferedOutput(isTerminal = false, columns = 100): BufferedOutput {
  let all = "";
  return {
    write: (text) => {
      all += text;
    },
    isTerminal,
    columns,
    text: () => all,
  };
}

export type FakeClock = Clock & { advance(ms: number): void };

/** Sleeping moves the clock and gives everyone else a turn. */
export function createFakeClock(startMs = Date.parse("2026-11-20T12:00:00Z")): FakeClock {
  let now = startMs;
  return {
    now: () => now,
    advance: (ms) => {
      now += ms;
    },
    sleep: async (ms, signal) => {
      signal?.throwIfAborted();
      now += ms;
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

export type Exchange = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: unknown;
};
export type Answer = { readonly status: number; readonly body?: unknown };

/** An HTTP server on loopback that answers by script and remembers what it was asked. */
export async function startScriptedApi(answer: (exchange: Exchange) => Answer | "hang-up") {
  const exchanges: Exchange[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const text = Buffer.concat(parts).toString();
      const exchange = {
        method: request.method ?? "",
        path: request.url ?? "",
        headers: request.headers,
        body: text === "" ? undefined : JSON.parse(text),
      };
      exchanges.push(exchange);
      const reply = answer(exchange);
      if (reply === "hang-up") {
        request.socket.destroy();
        return;
      }
      response.writeHead(reply.status, { "content-type": "application/json" });
      response.end(reply.body === undefined ? undefined : JSON.stringify(reply.body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    exchanges,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export async function createTemporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), "holdfast-cli-"));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

export type TestRun = {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
};

/** Runs a command line in this process. */
export async function runCli(
  commandLine: readonly string[],
  options: Partial<
    Pick<
      Context,
      | "environment"
      | "clock"
      | "mover"
      | "prompt"
      | "onInterrupt"
      | "random"
      | "localStackEntryPath"
    >
  > & {
    readonly endpoint?: string;
    readonly isTerminal?: boolean;
  } = {},
): Promise<TestRun> {
  const stdout = createBufferedOutput(options.isTerminal);
  const stderr = createBufferedOutput(options.isTerminal);
  const clock = options.clock ?? createFakeClock();
  const environment = options.environment ?? { HOME: "/nonexistent" };
  const unavailable = (what: string) => async (): Promise<never> => {
    throw new Failure("internal", { message: `this test has no ${what}` });
  };
  const createContext = (settings: GlobalSettings): Context => ({
    stdout,
    stderr,
    environment,
    settings,
    profileName: settings.profile ?? "local",
    profiles: createProfiles(environment),
    prompt: options.prompt ?? {
      canAsk: false,
      secret: unavailable("terminal"),
      confirm: unavailable("terminal"),
    },
    clock,
    random: options.random ?? ((length) => new Uint8Array(length).fill(7)),
    mover: options.mover ?? { run: unavailable("mover") },
    localStackEntryPath: options.localStackEntryPath ?? "/nonexistent",
    api: async () => {
      const endpoint = settings.endpoint ?? options.endpoint;
      if (endpoint === undefined) return await unavailable("API")();
      return createApiClient({ endpoint, token: "test-token", clock });
    },
    onInterrupt: options.onInterrupt ?? (() => ({ [Symbol.dispose]: () => undefined })),
  });
  const code = await runProgram(commandLine, { stdout, stderr, version: "0.0.0", createContext });
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}
