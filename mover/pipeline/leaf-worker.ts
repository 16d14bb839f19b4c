import { parentPort, workerData } from "node:worker_threads";
import { toFailureRecord } from "@holdfast/shared/domain/failure";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createLeafEngine } from "./leaf-engine.ts";
import type { EngineSetup, FromEngine, ToEngine } from "./leaf-messages.ts";

const port = parentPort;
if (port === null) throw new Error("leaf-worker.ts runs as a worker thread only");

const setup = workerData as EngineSetup;
const reply = (message: FromEngine): void => port.postMessage(message);
const engine = createLeafEngine({ ...setup, random: systemRandom }, reply);
let failed = false;

port.on("message", (message: ToEngine) => {
  if (failed) return;
  try {
    engine.handle(message);
  } catch (error) {
    failed = true;
    reply({ type: "failed", failure: toFailureRecord(error) });
  }
});
