import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { FunctionEntry } from "../../function-table.ts";
import type { Json } from "../json.ts";
import { throughJson } from "../json.ts";
import { functionArn, nameInArn } from "../names.ts";

/**
 * Runs the functions in this process as Lambda would: the module is loaded by path at its first call, event and
 * answer cross as JSON, errors become error type and message. Unlike Lambda it cannot kill a handler that ran into
 * its time limit: the caller hears of the time-out, the handler runs on.
 */
export type Functions = {
  /** Throws FunctionError. */
  invoke(nameOrArn: string, payload: Json): Promise<Json>;
  has(nameOrArn: string): boolean;
  /** Whether `drain` was called. */
  draining(): boolean;
  /** Resolves when no handler runs, at the latest after the time given. */
  drain(limitMs: number): Promise<void>;
};

export type Handler = (event: Json, context: LambdaContext) => unknown;

export type LambdaContext = {
  readonly functionName: string;
  readonly functionVersion: string;
  readonly invokedFunctionArn: string;
  readonly memoryLimitInMB: string;
  readonly awsRequestId: string;
  readonly logGroupName: string;
  readonly logStreamName: string;
  callbackWaitsForEmptyEventLoop: boolean;
  getRemainingTimeInMillis(): number;
};

export class FunctionError extends Error {
  readonly errorType: string;
  readonly trace: readonly string[];

  constructor(errorType: string, errorMessage: string, trace: readonly string[] = []) {
    super(errorMessage);
    this.name = "FunctionError";
    this.errorType = errorType;
    this.trace = trace;
  }

  /** What Lambda answers, and Step Functions puts into Cause. */
  toJson(): Json {
    return { errorType: this.errorType, errorMessage: this.message, trace: this.trace };
  }
}

export type FunctionsOptions = {
  readonly table: readonly FunctionEntry[];
  /** Folder that the table's entries start from. */
  readonly rootFolder: string;
  readonly logger: Logger;
  /** Handlers that are not loaded by path, for tests. */
  readonly handlers?: Readonly<Record<string, Handler>>;
};

export function createFunctions(options: FunctionsOptions): Functions {
  const { table, rootFolder, logger, handlers = {} } = options;
  const running = new Set<Promise<unknown>>();
  let isDraining = false;
  const find = (nameOrArn: string) => {
    const name = nameInArn(nameOrArn, "function") ?? nameOrArn;
    const given = Object.hasOwn(handlers, name);
    const blank = { name, entry: "", timeoutSeconds: 900, memoryMiB: 128 };
    return table.find((entry) => entry.name === name) ?? (given ? blank : undefined);
  };

  async function load(entry: FunctionEntry): Promise<Handler> {
    const given = handlers[entry.name];
    if (given !== undefined) return given;
    const path = join(rootFolder, entry.entry);
    const module = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
    if (typeof module["handler"] !== "function") {
      throw new FunctionError("Runtime.HandlerNotFound", `${entry.entry} exports no handler`);
    }
    return module["handler"] as Handler;
  }

  return {
    has: (nameOrArn) => find(nameOrArn) !== undefined,
    invoke: async (nameOrArn, payload) => {
      const entry = find(nameOrArn);
      if (entry === undefined) {
        const message = `Function not found: ${nameOrArn}`;
        throw new FunctionError("Lambda.ResourceNotFoundException", message);
      }
      const context = contextOf(entry);
      const call = (async () => throughJson(await (await load(entry))(payload, context)))();
      running.add(call);
      const ended = () => running.delete(call);
      call.then(ended, ended);
      try {
        return await withinTime(call, entry, context.awsRequestId);
      } catch (error) {
        const known = toFunctionError(error);
        logger.warn("function failed", {
          function: entry.name,
          errorType: known.errorType,
          message: known.message,
          trace: known.trace,
        });
        throw known;
      }
    },
    draining: () => isDraining,
    drain: async (limitMs) => {
      isDraining = true;
      let timer: NodeJS.Timeout | undefined;
      const limit = new Promise((resolve) => {
        timer = setTimeout(resolve, limitMs);
      });
      await Promise.race([Promise.allSettled(running), limit]);
      clearTimeout(timer);
      // Whoever waited for these handlers hears of it first.
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

function contextOf(entry: FunctionEntry): LambdaContext {
  const endsAt = Date.now() + entry.timeoutSeconds * 1000;
  return {
    functionName: entry.name,
    functionVersion: "$LATEST",
    invokedFunctionArn: functionArn(entry.name),
    memoryLimitInMB: String(entry.memoryMiB),
    awsRequestId: randomUUID(),
    logGroupName: `/aws/lambda/${entry.name}`,
    logStreamName: "local",
    callbackWaitsForEmptyEventLoop: false,
    getRemainingTimeInMillis: () => Math.max(0, endsAt - Date.now()),
  };
}

async function withinTime<T>(call: Promise<T>, entry: FunctionEntry, id: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const seconds = entry.timeoutSeconds.toFixed(2);
      const message = `RequestId: ${id} Error: Task timed out after ${seconds} seconds`;
      reject(new FunctionError("Sandbox.Timedout", message));
    }, entry.timeoutSeconds * 1000);
  });
  try {
    return await Promise.race([call, limit]);
  } finally {
    clearTimeout(timer);
  }
}

function toFunctionError(error: unknown): FunctionError {
  if (error instanceof FunctionError) return error;
  if (!(error instanceof Error)) return new FunctionError(typeof error, String(error));
  const trace = (error.stack ?? "").split("\n").slice(0, 20);
  return new FunctionError(error.name, error.message, trace);
}
