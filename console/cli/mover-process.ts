import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type {
  CatalogPoint,
  Serving,
  StandaloneRequest,
  StandaloneResult,
} from "@holdfast/shared/contracts/standalone";
import { StandaloneLine, standaloneResults } from "@holdfast/shared/contracts/standalone";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Environment } from "./context.ts";
import { failureFromRecord } from "./remote-failure.ts";

/**
 * Moving data is the mover's: the CLI starts `mover/standalone.ts` by path and speaks JSON lines with it.
 * The child ends when the CLI does, however that happens: it watches its stdin.
 */
export type MoverProcess = {
  /** Fails with what the mover says, or `cancelled` when the signal ended it. */
  run<Kind extends StandaloneRequest["kind"]>(
    request: StandaloneRequest & { readonly kind: Kind },
    options: MoverCall,
  ): Promise<StandaloneResult<Kind>>;
};

export type MoverCall = {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: StandaloneProgress) => void;
  readonly onWarning?: (message: string) => void;
  readonly onNote?: (message: string) => void;
  readonly onServing?: (serving: Serving) => void;
  /** Awaited before the next line is read. */
  readonly onPoint?: (point: CatalogPoint) => Promise<void>;
};

export type StandaloneProgress = {
  readonly disk: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
};

const stderrCharactersMax = 4000;
/** A cancelled mover that has not ended by then does not answer any more. */
const stopMsMax = 30_000;

export function createMoverProcess(entryPath: string, environment: Environment): MoverProcess {
  return {
    run: async (request, options) => {
      const {
        HOLDFAST_PASSPHRASE: _secret,
        HOLDFAST_TARGET_PASSPHRASE: _target,
        ...rest
      } = environment;
      const child = spawn(process.execPath, [entryPath], {
        stdio: ["pipe", "pipe", "pipe"],
        env: rest,
      });
      const exited = new Promise<void>((resolve, reject) => {
        child.once("error", (error) =>
          reject(new Failure("internal", { message: "the mover does not start", cause: error })),
        );
        child.once("close", () => resolve());
      });
      // A rejection before anyone waits for it is not lost: it is awaited below.
      exited.catch(() => undefined);
      let killer: NodeJS.Timeout | undefined;
      const stop = (): void => {
        child.kill("SIGTERM");
        killer ??= setTimeout(() => child.kill("SIGKILL"), stopMsMax).unref();
      };
      options.signal?.addEventListener("abort", stop, { once: true });
      let complaints = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        complaints = (complaints + text).slice(-stderrCharactersMax);
      });
      // A mover that died early closes its stdin; what it said on stdout decides then.
      child.stdin.on("error", () => undefined);
      child.stdin.write(`${JSON.stringify(request)}\n`);
      if (options.signal?.aborted) stop();
      try {
        const outcome = await readOutcome(createInterface({ input: child.stdout }), options);
        child.stdin.end();
        await exited;
        if (outcome === undefined) {
          if (options.signal?.aborted) throw new Failure("cancelled", { message: "cancelled" });
          throw new Failure("internal", {
            message: `the mover ended without a result (${child.signalCode ?? child.exitCode}): ${complaints.trim()}`,
          });
        }
        return parseResult(request.kind, outcome.result);
      } finally {
        clearTimeout(killer);
        options.signal?.removeEventListener("abort", stop);
        child.stdin.end();
      }
    },
  };
}

async function readOutcome(
  lines: AsyncIterable<string>,
  options: MoverCall,
): Promise<{ readonly result: unknown } | undefined> {
  for await (const text of lines) {
    const line = parseLine(text);
    switch (line.type) {
      case "progress":
        options.onProgress?.(line);
        break;
      case "warning":
        options.onWarning?.(line.message);
        break;
      case "note":
        options.onNote?.(line.message);
        break;
      case "serving":
        options.onServing?.(line.serving);
        break;
      case "point":
        await options.onPoint?.(line.point);
        break;
      case "result":
        return { result: line.result };
      case "failed":
        throw failureFromRecord(line.failure);
      default:
        line satisfies never;
    }
  }
  return undefined;
}

function parseLine(text: string): StandaloneLine {
  try {
    return StandaloneLine.parse(JSON.parse(text));
  } catch (error) {
    const message = `the mover said something unexpected: ${JSON.stringify(text.slice(0, 200))}`;
    throw new Failure("internal", { message, cause: error });
  }
}

function parseResult<Kind extends StandaloneRequest["kind"]>(
  kind: Kind,
  result: unknown,
): StandaloneResult<Kind> {
  const parsed = standaloneResults[kind].safeParse(result);
  if (parsed.success) return parsed.data as StandaloneResult<Kind>;
  throw new Failure("internal", {
    message: `the mover's result of ${kind} is not understood`,
    cause: parsed.error,
  });
}
