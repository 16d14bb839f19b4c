import { closeSync, fdatasync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type { Json } from "../json.ts";
import { parseJson } from "../json.ts";
import { syncFolder } from "./json-file.ts";

/**
 * An append-only file of JSON lines. `append` hands the line to the operating system at once, so it outlives a
 * kill -9 of this process; `flush` resolves when everything appended so far is on the disk. Calls that come
 * together share one fdatasync.
 */
export type AppendLog = {
  append(record: Json): void;
  flush(): Promise<void>;
  close(): void;
};

/** Opens or creates; a torn last line, left by a crash in the middle of a write, is cut off. */
export function openAppendLog(path: string): { log: AppendLog; records: readonly Json[] } {
  const file = openSync(path, "a+", 0o600);
  const { records, lengthBytes, sizeBytes } = readLines(path);
  if (lengthBytes < sizeBytes) ftruncateSync(file, lengthBytes);
  if (sizeBytes === 0) syncFolder(dirname(path));
  return { log: createAppendLog(file), records };
}

/** Reads without opening for writing. */
export function readAppendLog(path: string): readonly Json[] {
  return readLines(path).records;
}

function readLines(path: string): { records: Json[]; lengthBytes: number; sizeBytes: number } {
  const bytes = readFileSync(path);
  const end = bytes.lastIndexOf(10) + 1;
  const lines = bytes.toString("utf8", 0, end).split("\n");
  const records = lines.slice(0, -1).map((line, index) => {
    try {
      return parseJson(line);
    } catch (cause) {
      // Not what a crash leaves, which is a torn end only: nothing is guessed about it.
      throw new Error(`${path} is damaged in line ${index + 1}`, { cause });
    }
  });
  return { records, lengthBytes: end, sizeBytes: bytes.length };
}

function createAppendLog(file: number): AppendLog {
  let closed = false;
  let written = 0;
  let synced = 0;
  let running: Promise<void> | undefined;

  const sync = () =>
    new Promise<void>((resolve, reject) => {
      const upTo = written;
      fdatasync(file, (error) => {
        if (error !== null) return reject(error);
        synced = upTo;
        resolve();
      });
    });

  return {
    append: (record) => {
      if (closed) throw new Error("append to a closed log");
      writeAll(file, Buffer.from(`${JSON.stringify(record)}\n`));
      written += 1;
    },
    flush: async () => {
      const wanted = written;
      while (!closed && synced < wanted) {
        running ??= sync().finally(() => {
          running = undefined;
        });
        await running;
      }
    },
    close: () => {
      if (closed) return;
      closed = true;
      const finish = () => closeSync(file);
      // A sync in flight holds the descriptor: close only behind it.
      if (running === undefined) finish();
      else running.then(finish, finish);
    },
  };
}

function writeAll(file: number, bytes: Buffer): void {
  for (let offset = 0; offset < bytes.length; ) {
    offset += writeSync(file, bytes, offset, bytes.length - offset);
  }
}
