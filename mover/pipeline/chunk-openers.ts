import { Worker } from "node:worker_threads";
import { asFailure, Failure } from "@holdfast/shared/domain/failure";
import type { RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";
import { createChunkOpener } from "./chunk-opener.ts";
import { youngGenerationMb } from "./leaf-executor.ts";
import type { OpenAnswer, OpenerSetup, OpenRequest } from "./restore-messages.ts";

export type Opened = { readonly bytes: Uint8Array; readonly ids: readonly Uint8Array[] };

/** Opens chunks in worker threads; with 0 workers, in this thread. */
export type ChunkOpeners = {
  readonly open: (request: Omit<OpenRequest, "number">) => Promise<Opened>;
  readonly stop: () => Promise<void>;
};

type Waiting = {
  readonly resolve: (answer: Opened) => void;
  readonly reject: (error: unknown) => void;
};

export function createChunkOpeners(secrets: RepositorySecrets, workers: number): ChunkOpeners {
  if (workers === 0) {
    const open = createChunkOpener(secrets);
    return {
      open: async (request) => open({ ...request, number: 0 }),
      stop: async () => undefined,
    };
  }
  const waiting = new Map<number, Waiting>();
  let number = 0;
  let broken: unknown;

  function hear(answer: OpenAnswer): void {
    const asker = waiting.get(answer.number);
    waiting.delete(answer.number);
    if ("bytes" in answer) asker?.resolve(answer);
    else asker?.reject(new Failure(answer.failure.code, { message: answer.failure.message }));
  }

  function fail(error: unknown): void {
    broken ??= asFailure(error, "internal", "a restore's worker thread failed");
    for (const { reject } of waiting.values()) reject(broken);
    waiting.clear();
  }

  const threads = Array.from({ length: workers }, () => {
    const workerData: OpenerSetup = { secrets };
    const worker = new Worker(new URL("./restore-worker.ts", import.meta.url), {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb },
    });
    worker.on("message", hear);
    worker.on("error", fail);
    worker.on("exit", (code) => fail(new Error(`it ended with code ${code}`)));
    return worker;
  });

  return {
    open: (request) =>
      new Promise((resolve, reject) => {
        if (broken !== undefined) {
          reject(broken);
          return;
        }
        number += 1;
        const worker = number % threads.length;
        waiting.set(number, { resolve, reject });
        // Given away, not copied: what a store answered with is the caller's alone.
        const { buffer } = request.bytes;
        const isWhole =
          buffer instanceof ArrayBuffer && buffer.byteLength === request.bytes.byteLength;
        threads[worker]?.postMessage({ ...request, number }, isWhole ? [buffer] : []);
      }),
    stop: async () => {
      await Promise.all(threads.map((worker) => worker.terminate()));
    },
  };
}
