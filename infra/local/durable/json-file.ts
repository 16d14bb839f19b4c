import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type { Json } from "../json.ts";
import { parseJson } from "../json.ts";

/**
 * Replaces the file as a whole: temporary file, fsync, rename, fsync of the folder. After a crash the file holds
 * either what it held before or `text`, never a part.
 */
export function replaceFile(path: string, text: string, mode = 0o600): void {
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  const file = openSync(temporary, "wx", mode);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
  syncFolder(dirname(path));
}

export function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Undefined when there is no such file. */
export function readFileIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** A map of JSON values in one file, written as a whole at each change; for hundreds of entries, not for millions. */
export type JsonMapFile<T> = {
  get(key: string): T | undefined;
  set(key: string, value: T): void;
  delete(key: string): boolean;
  values(): readonly T[];
};

/** `parse` is the door: it throws on entries of another shape, so a damaged file stops the start. */
export function openJsonMapFile<T>(path: string, parse: (value: Json) => T): JsonMapFile<T> {
  const text = readFileIfAny(path);
  const entries = new Map<string, T>();
  if (text !== undefined) {
    for (const [key, value] of Object.entries(parseJson(text) as Record<string, Json>)) {
      entries.set(key, parse(value));
    }
  }
  const save = () => replaceFile(path, `${JSON.stringify(Object.fromEntries(entries), null, 1)}\n`);
  return {
    get: (key) => entries.get(key),
    set: (key, value) => {
      entries.set(key, value);
      save();
    },
    delete: (key) => {
      const existed = entries.delete(key);
      if (existed) save();
      return existed;
    },
    values: () => [...entries.values()],
  };
}
