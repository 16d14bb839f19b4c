import { Worker } from "node:worker_threads";
import { asFailure, Failure, toFailureRecord } from "@holdfast/shared/domain/failure";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { createLeafEngine } from "./leaf-engine.ts";
import type { EngineSetup, FromEngine, ToEngine } from "./leaf-messages.ts";

/** Runs one leaf engine: in a worker thread, or in this thread between other events. */
export type LeafExecutor = {
  readonly post: (message: ToEngine) => void;
  readonly stop: () => Promise<void>;
};

type Ears = {
  readonly onMessage: (message: FromEngine) => void;
  readonly onFailure: (failure: Failure) => void;
};

/** A chunk leaves some hundred KiB of buffers behind small objects: a small young generation frees them soon. */
export const youngGenerationMb = 2;

export function startWorker(setup: EngineSetup, ears: Ears): LeafExecutor {
  const worker = new Worker(new URL("./leaf-worker.ts", import.meta.url), {
    workerData: setup,
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb },
  });
  let stopping = false;
  worker.on("message", (message: FromEngine) => {
    if (message.type === "failed") {
      const { code, message: text, causes } = message.failure;
      ears.onFailure(new Failure(code, { message: text, ...(causes.length > 0 && { causes }) }));
    } else {
      ears.onMessage(message);
    }
  });
  worker.on("error", (error) =>
    ears.onFailure(asFailure(error, "internal", "a transfer's worker thread failed")),
  );
  worker.on("exit", (code) => {
    if (stopping) return;
    ears.onFailure(
      new Failure("internal", { message: `a transfer's worker thread ended with code ${code}` }),
    );
  });
  return {
    post: (message) => worker.postMessage(message),
    stop: async () => {
      stopping = true;
      await worker.terminate();
    },
  };
}

/** The same engine without a thread, for small disks and for tests that need one seeded source of chance. */
export function startInPlace(
  setup: EngineSetup & { readonly random: RandomBytes },
  ears: Ears,
): LeafExecutor {
  let stopped = false;
  const engine = createLeafEngine(setup, ears.onMessage);
  return {
    post: (message) => {
      queueMicrotask(() => {
        if (stopped) return;
        try {
          engine.handle(message);
        } catch (error) {
          stopped = true;
          const { message: text } = toFailureRecord(error);
          ears.onFailure(asFailure(error, "internal", text));
        }
      });
    },
    stop: async () => {
      stopped = true;
    },
  };
}
