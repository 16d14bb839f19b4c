import type { DiskReader } from "@holdfast/shared/ports/disk";
import { blockBytes } from "@holdfast/shared/repository/format/settings";
import type { LeafExecutor } from "./leaf-executor.ts";
import type { ToEngine } from "./leaf-messages.ts";
import type { ByteRun, SampleCheck } from "./leaf-plan.ts";
import { createBell, createSlots } from "./limits.ts";
import type { LeafJob } from "./prepare-leaf.ts";

/** Reads ahead within all leaves that are worked on, with a fixed number of buffers, and hands each leaf's bytes over in order. */
export type LeafFeeder = {
  readonly feed: (job: LeafJob, executor: LeafExecutor, signal: AbortSignal) => Promise<void>;
  /** A buffer came back. */
  readonly giveBack: (buffer: SharedArrayBuffer) => void;
  readonly bytesRead: () => number;
};

const segmentBytesMax = 1024 * 1024;
const buffersMax = 64;

type Segment = ByteRun & {
  readonly message: (buffer: SharedArrayBuffer) => ToEngine;
};

/** `room` resolves when the executors may be given more. */
export function createLeafFeeder(
  reader: DiskReader,
  executors: number,
  room: (signal: AbortSignal) => Promise<void>,
): LeafFeeder {
  const segmentBytes = Math.max(
    blockBytes,
    Math.floor(Math.min(segmentBytesMax, reader.readBytesMax) / blockBytes) * blockBytes,
  );
  const reads = createSlots(Math.max(1, reader.readsMax));
  const buffers = Math.min(buffersMax, reader.readsMax + 4 * executors);
  const pool = Array.from({ length: buffers }, () => new SharedArrayBuffer(segmentBytes));
  const returned = createBell();
  let bytesRead = 0;

  async function read(
    { offset, length }: ByteRun,
    buffer: SharedArrayBuffer,
    signal: AbortSignal,
  ): Promise<void> {
    await reads.take(signal);
    try {
      await reader.read(offset, new Uint8Array(buffer, 0, length), { signal });
      bytesRead += length;
    } finally {
      reads.give();
    }
  }

  return {
    bytesRead: () => bytesRead,
    giveBack: (buffer) => {
      pool.push(buffer);
      returned.ring();
    },
    feed: async (job, executor, signal) => {
      const inFlight: { readonly done: Promise<void>; readonly message: ToEngine }[] = [];
      const handOver = async (): Promise<void> => {
        const first = inFlight.shift();
        if (first === undefined) return;
        await first.done;
        await room(signal);
        executor.post(first.message);
      };
      for (const segment of segmentsOf(job, segmentBytes)) {
        signal.throwIfAborted();
        // What was read is handed over before more is waited for, so that leaves never hold all buffers between them.
        while (pool.length === 0 && inFlight.length > 0) await handOver();
        let buffer = pool.pop();
        while (buffer === undefined) {
          await returned.until(() => pool.length > 0, signal);
          buffer = pool.pop();
        }
        const done = read(segment, buffer, signal);
        // Awaited in its turn; until then its failure is nobody's yet.
        done.catch(() => undefined);
        inFlight.push({ done, message: segment.message(buffer) });
      }
      while (inFlight.length > 0) await handOver();
    },
  };
}

function* segmentsOf(job: LeafJob, segmentBytes: number): Generator<Segment> {
  for (const run of job.reads) {
    for (const part of split(run, segmentBytes)) {
      yield { ...part, message: (buffer) => ({ type: "data", ...part, buffer }) };
    }
  }
  for (const check of job.checks) yield* checkSegments(check, segmentBytes);
}

function* checkSegments(check: SampleCheck, segmentBytes: number): Generator<Segment> {
  const { claim, id } = check;
  for (const part of split(check, segmentBytes)) {
    const isFirst = part.offset === check.offset;
    const isLast = part.offset + part.length === check.offset + check.length;
    yield {
      ...part,
      message: (buffer) => ({ type: "check", ...part, claim, id, isFirst, isLast, buffer }),
    };
  }
}

function* split(run: ByteRun, segmentBytes: number): Generator<ByteRun> {
  for (let at = 0; at < run.length; at += segmentBytes) {
    yield { offset: run.offset + at, length: Math.min(segmentBytes, run.length - at) };
  }
}
