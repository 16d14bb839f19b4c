import { parentPort, workerData } from "node:worker_threads";
import { toFailureRecord } from "@holdfast/shared/domain/failure";
import { freeBytes } from "@holdfast/shared/repository/format/bytes";
import { createChunkOpener } from "./chunk-opener.ts";
import type { OpenAnswer, OpenerSetup, OpenRequest } from "./restore-messages.ts";

const port = parentPort;
if (port === null) throw new Error("restore-worker.ts runs as a worker thread only");

const open = createChunkOpener((workerData as OpenerSetup).secrets);

port.on("message", (request: OpenRequest) => {
  const { number } = request;
  try {
    const { bytes, ids } = open(request);
    // Given to this thread alone, and done with.
    freeBytes(request.bytes);
    const transfer = bytes.buffer instanceof ArrayBuffer ? [bytes.buffer] : [];
    port.postMessage({ number, bytes, ids } satisfies OpenAnswer, transfer);
  } catch (error) {
    port.postMessage({ number, failure: toFailureRecord(error) } satisfies OpenAnswer);
  }
});
