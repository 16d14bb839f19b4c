import type { Clock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { type CollectOptions, collect } from "@holdfast/shared/repository/maintenance/collect";
import type { CollectReport } from "@holdfast/shared/repository/maintenance/collect-report";
import { openRepository, type Repository } from "@holdfast/shared/repository/repository";
import type { BeginSession, Session } from "@holdfast/shared/repository/session/sessions";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { createChunkIndexLoader } from "./chunk-index-loader.ts";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import { beginSession, newPoint, passphrase, restore, transfer } from "./test-repository.ts";

/** For tests of garbage collection: a mover as it works in earnest, and looks at what is left. */
export type TestClock = Clock & { readonly advance: (ms: number) => void };

export function createTestClock(startMs = Date.UTC(2026, 10, 20)): TestClock {
  let nowMs = startMs;
  return {
    now: () => nowMs,
    sleep: async (delayMs, signal) => {
      signal?.throwIfAborted();
      nowMs += delayMs;
      // Whoever else works goes on meanwhile.
      await new Promise<void>((resolve) => setImmediate(resolve));
    },
    advance: (ms) => {
      nowMs += ms;
    },
  };
}

export function openAt(store: ObjectStore, clock: Clock): Promise<Repository> {
  return openRepository({ store, passphrase, clock, random: systemRandom });
}

/** Half a dozen chunks, in two leaves; `parts` say which pieces are alike. */
export function diskOf(...parts: readonly number[]): Uint8Array {
  const partBytes = 64 * 1024;
  const disk = new Uint8Array(parts.length * partBytes);
  for (const [at, seed] of parts.entries()) disk.set(seededBytes(partBytes, seed), at * partBytes);
  return disk;
}

export type BackUp = {
  readonly vm: string;
  readonly pointId: string;
  readonly disk: Uint8Array;
  readonly session?: Partial<BeginSession>;
  readonly fence?: number;
};

/** As `holdfast image backup` does: the newest point is pinned and built upon, the index is asked. */
export async function backUp(repository: Repository, o: BackUp): Promise<string> {
  let newest: string | undefined;
  for await (const point of repository.listPoints({ vmKey: o.vm })) newest = point.rootKey;
  const pins = newest === undefined ? [] : [newest];
  const session = await beginSession(repository, { pins, ...o.session });
  try {
    const recordKey = await transferIn(repository, session, newest, o.disk);
    const more = { pointId: o.pointId, vmKey: o.vm, vmName: o.vm, jobId: `job-${o.pointId}` };
    const point = newPoint(recordKey, { ...more, fence: o.fence ?? 1 });
    return (await repository.writePoint(session, point)).rootKey;
  } catch (error) {
    await session.abort();
    throw error;
  }
}

export async function transferIn(
  repository: Repository,
  session: Session,
  newest: string | undefined,
  disk: Uint8Array,
): Promise<string> {
  const signal = new AbortController().signal;
  const isUsable =
    newest !== undefined && (await repository.sessions.isUsablePoint(session, newest));
  const parent = isUsable ? await repository.readPoint(newest) : undefined;
  const previous = parent?.disks[0]?.recordKey;
  const loader = createChunkIndexLoader(repository, { logger: silentLogger });
  const index = await loader.load(session, signal);
  const more = { session, ...index, ...(previous === undefined ? {} : { previous }) };
  return (await transfer(repository, createMemoryReader(disk), more)).recordKey;
}

/** A collection by `host`, which may remove everything that is garbage. */
export function collectNow(
  repository: Repository,
  more: Partial<CollectOptions> = {},
): Promise<CollectReport> {
  return collect({
    repository,
    holder: "test",
    observer: "host",
    allowShare: 1,
    logger: silentLogger,
    ...more,
  });
}

/** Restores all points that are listed, and compares them with what was backed up under their names. */
export async function restoreAll(
  repository: Repository,
  expected: ReadonlyMap<string, Uint8Array>,
): Promise<readonly string[]> {
  const restored: string[] = [];
  for await (const { rootKey, pointId, vmKey, disks } of repository.listPoints({
    onUnreadable: ({ failure }) => {
      throw failure;
    },
  })) {
    const name = `${vmKey}/${pointId}`;
    const disk = expected.get(name);
    if (disk === undefined) throw new Error(`${name} was never backed up`);
    await repository.readPoint(rootKey);
    const recordKey = disks[0]?.recordKey ?? "";
    const { bytes } = await restore(repository, recordKey, { sizeBytes: disk.length });
    if (Buffer.compare(bytes, disk) !== 0) throw new Error(`${name} was restored wrongly`);
    restored.push(name);
  }
  return restored;
}

export async function keysOf(store: ObjectStore, prefix = ""): Promise<readonly string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

export async function copyStore(store: ObjectStore): Promise<ObjectStore> {
  const copy = createMemoryObjectStore();
  for await (const { key } of store.list("")) await copy.put(key, await store.get(key));
  return copy;
}

/** The same store, which tells before each call that it is about to be made: number, from 1 on, and what. */
export function hookedStore(
  store: ObjectStore,
  onCall: (number: number, what: string) => Promise<void>,
): ObjectStore {
  let number = 0;
  const told = async <T>(what: string, call: () => Promise<T>): Promise<T> => {
    number += 1;
    await onCall(number, what);
    return call();
  };
  return {
    ...store,
    put: (key, bytes, options) => told(`put ${key}`, () => store.put(key, bytes, options)),
    get: (key, options) => told(`get ${key}`, () => store.get(key, options)),
    getRange: (key, range, options) =>
      told(`getRange ${key}`, () => store.getRange(key, range, options)),
    head: (key, options) => told(`head ${key}`, () => store.head(key, options)),
    remove: (keys, options) => told(`remove ${keys.join(" ")}`, () => store.remove(keys, options)),
    async *list(prefix, options) {
      await told(`list ${prefix}`, async () => undefined);
      yield* store.list(prefix, options);
    },
  };
}

/** A store that stops at a call, tells that it has, and goes on when it is released. */
export function pauseAt(store: ObjectStore, call: number) {
  let reach: () => void = () => undefined;
  let release: () => void = () => undefined;
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const paused = hookedStore(store, async (number) => {
    if (number !== call) return;
    reach();
    await released;
  });
  return { store: paused, reached, release };
}
