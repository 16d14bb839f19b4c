import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { ObjectStoreSupports } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createDirectoryObjectStore } from "@holdfast/shared/storage/directory/directory-object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { createS3ObjectStore } from "@holdfast/shared/storage/s3/s3-object-store";
import { createThrottle } from "@holdfast/shared/storage/throttle";
import { throttled } from "@holdfast/shared/storage/throttled";
import { withRetries } from "@holdfast/shared/storage/with-retries";
import {
  describeObjectStore,
  type ObjectStoreHarness,
  type OpenedObjectStore,
} from "./object-store.ts";
import { startS3Server } from "./object-store-s3-server.ts";

const lockedSupports = { conditionalPut: true, versioned: true, objectLock: true };
const harnesses: readonly ObjectStoreHarness[] = [
  { name: "memory", open: openMemory },
  { name: "memory, retried", open: () => retried(openMemory()) },
  { name: "memory, throttled", open: () => limited(openMemory()) },
  { name: "memory with locks, throttled", open: () => limited(openLockedMemory()), nowMs: () => 0 },
  { name: "memory with locks", open: openLockedMemory, nowMs: () => 0 },
  { name: "memory with locks, retried", open: () => retried(openLockedMemory()), nowMs: () => 0 },
  { name: "directory", open: () => openDirectory({ hardLinks: true }) },
  { name: "directory, retried", open: () => retried(openDirectory({})) },
  { name: "directory without hard links", open: () => openDirectory({ hardLinks: false }) },
  { name: "S3 over HTTP", open: () => openS3({ conditionalPut: true }) },
  { name: "S3 over HTTP, retried", open: () => retried(openS3({ conditionalPut: true })) },
  { name: "S3 without conditional put", open: () => openS3({ conditionalPut: false }) },
  { name: "S3 not probed yet", open: () => openS3(undefined) },
  { name: "S3 with versions and Object Lock", open: () => openS3(lockedSupports) },
  { name: "S3 with Object Lock, retried", open: () => retried(openS3(lockedSupports)) },
];
for (const harness of harnesses) describeObjectStore(harness);

async function openMemory(): Promise<OpenedObjectStore> {
  return { store: createMemoryObjectStore(), close: async () => undefined };
}

async function openLockedMemory(): Promise<OpenedObjectStore> {
  const store = createMemoryObjectStore({ lockClock: clockAtOnce });
  return { store, close: async () => undefined };
}

async function openDirectory(options: {
  readonly hardLinks?: boolean;
}): Promise<OpenedObjectStore> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-store-"));
  return {
    store: createDirectoryObjectStore(join(folder, "repository"), options),
    close: () => rm(folder, { recursive: true }),
  };
}

async function openS3(supports: ObjectStoreSupports | undefined): Promise<OpenedObjectStore> {
  const server = await startS3Server({ objectLock: supports?.objectLock === true });
  const client = createS3Client({
    endpoint: server.endpoint,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
  });
  const place = { bucket: "bucket", prefix: "some/prefix" };
  return {
    store: createS3ObjectStore({ ...place, client, ...(supports && { supports }) }),
    close: async () => {
      client.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** On a clock that jumps, so that limits bind and nobody waits. */
async function limited(opening: Promise<OpenedObjectStore>): Promise<OpenedObjectStore> {
  const { store, close } = await opening;
  let now = 0;
  const clock: Clock = {
    now: () => now,
    sleep: async (delayMs) => {
      now += delayMs;
    },
  };
  const limit = (what: string) => [createThrottle({ clock, what, rate: 1000 })];
  const throttles = {
    upload: limit("upload"),
    download: limit("download"),
    requests: limit("requests"),
  };
  return { store: throttled(store, throttles), close };
}

async function retried(opening: Promise<OpenedObjectStore>): Promise<OpenedObjectStore> {
  const { store, close } = await opening;
  return { store: withRetries(store, { attemptsMax: 3 }, clockAtOnce, systemRandom), close };
}

const clockAtOnce: Clock = {
  now: () => 0,
  sleep: async (_delayMs, signal) => signal?.throwIfAborted(),
};
