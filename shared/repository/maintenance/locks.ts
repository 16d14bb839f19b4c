import { Failure, isFailure } from "../../domain/failure.ts";
import type {
  CallOptions,
  ObjectLocks,
  ObjectStore,
  Retention,
  VersionOptions,
} from "../../ports/object-store.ts";
import { type LockSettings, retentionFrom } from "../format/retention.ts";
import type { Repository } from "../repository.ts";
import { isCommitted, sessionOfRoot } from "../session/session-state.ts";
import { inParallel } from "./in-parallel.ts";
import { takeInventory } from "./inventory.ts";
import { type KnownRoot, readRoots } from "./known-root.ts";
import { createMarker } from "./mark.ts";
import { flags } from "./object-table.ts";
import { parseStoredName } from "./stored-name.ts";

/** Requests in flight; they are small and most of their time is waiting. */
const inFlightMax = 32;

export type LocksExtended = {
  readonly points: number;
  readonly objects: number;
  readonly extended: number;
  readonly untilMs: number;
};

type LockOptions = CallOptions & {
  /** Hears of points of which not everything that they need is known, because of damage; what is known of them is locked all the same. */
  readonly onDamaged?: (rootKey: string, failure: Failure) => void;
};

/**
 * Extends the retention of all that the points need, so that it lasts for `lock.days` from now on, in steps of whole generations. What lasts
 * as long already costs one request. Fails with `unsupported` where the store cannot lock, and as the store does.
 */
export async function extendLocks(
  repository: Repository,
  o: LockOptions & { readonly lock: LockSettings; readonly dryRun: boolean },
): Promise<LocksExtended> {
  const locks = locksOf(repository.store);
  const until = retentionFrom(o.lock, repository.clock.now());
  const { points, isNeeded } = await markNeeded(repository, undefined, o);
  let objects = 0;
  let extended = 0;
  await forEachFirstVersion(repository.store, isNeeded, o, async (key, version) => {
    const state = await locks.look(key, version);
    // Removed since it was listed: its point is gone, too.
    if (state === undefined) return;
    objects += 1;
    const needed = extension(state.retention, until);
    if (needed === undefined) return;
    extended += 1;
    if (!o.dryRun) await locks.extend(key, needed, version);
  });
  return { points, objects, extended, untilMs: until.untilMs };
}

/**
 * Legal hold on all that one point needs, or its end. What other points share is held with it, and is free again with the hold's end. Returns
 * how many objects were changed. Fails with `unsupported`, `object.not-found`, `collect.damaged`.
 */
export async function holdPoint(
  repository: Repository,
  o: LockOptions & { readonly rootKey: string; readonly isOn: boolean },
): Promise<number> {
  const locks = locksOf(repository.store);
  const { points, isNeeded } = await markNeeded(repository, o.rootKey, o);
  if (points === 0) {
    throw new Failure("object.not-found", { message: `${o.rootKey} is no point`, key: o.rootKey });
  }
  let changed = 0;
  await forEachFirstVersion(repository.store, isNeeded, o, async (key, version) => {
    const state = await locks.look(key, version);
    if (state === undefined || state.legalHold === o.isOn) return;
    await locks.hold(key, o.isOn, version);
    changed += 1;
  });
  return changed;
}

/** Undefined when the retention there lasts long enough. Compliance is never made less. */
function extension(now: Retention | undefined, wanted: Retention): Retention | undefined {
  const isCompliant = now?.mode === "compliance";
  const mode = isCompliant ? "compliance" : wanted.mode;
  const untilMs = Math.max(now?.untilMs ?? 0, wanted.untilMs);
  return now?.mode === mode && now.untilMs >= wanted.untilMs ? undefined : { mode, untilMs };
}

/** What the points need, or the one with that root: names of objects of all kinds, config and keys included. */
async function markNeeded(
  repository: Repository,
  rootKey: string | undefined,
  { signal, onDamaged }: LockOptions,
): Promise<{ readonly points: number; readonly isNeeded: (key: string) => boolean }> {
  const options = signal === undefined ? {} : { signal };
  const inventory = await takeInventory(repository, async () => undefined, options);
  const { tables, sessions } = inventory;
  // A point that is to go is not locked anew: it would never go.
  const { roots: condemned } = await repository.sessions.condemned.load(options);
  const committed = [...inventory.roots.keys()].filter((key) =>
    rootKey === undefined
      ? isCommitted(key, sessions) && !condemned.has(key)
      : isCommitted(key, sessions) && key === rootKey,
  );
  const marker = createMarker({ repository, inventory, onRead: async () => undefined });
  const names = new Set<string>();
  for (const [key, root] of await readRoots(repository, committed, options)) {
    names.add(key);
    const its = sessionOfRoot(key);
    const state = sessions.get(its?.sessionId ?? "");
    for (const name of state?.starts ?? []) names.add(name);
    for (const name of state?.ends.get(its?.rootEnd ?? "") ?? []) names.add(name);
    await markRoot(root);
  }

  async function markRoot(root: KnownRoot | Error): Promise<void> {
    try {
      if (root instanceof Error) throw root;
      await marker.mark([root], options);
    } catch (error) {
      const isDamage =
        isFailure(error, "collect.damaged") ||
        isFailure(error, "object.corrupt") ||
        isFailure(error, "object.not-found");
      if (!isDamage || rootKey !== undefined) throw error;
      onDamaged?.(root instanceof Error ? "" : root.rootKey, error);
    }
  }

  function isNeeded(key: string): boolean {
    const parsed = parseStoredName(key);
    switch (parsed.kind) {
      case "pack":
      case "disk":
      case "metadata": {
        const row = tables[parsed.kind].find(parsed.id);
        return row >= 0 && tables[parsed.kind].has(row, flags.needed);
      }
      case "relocation":
        return marker.neededRelocations.has(key);
      case "kept":
        return true;
      default:
        return names.has(key);
    }
  }

  return { points: committed.length, isNeeded };
}

/**
 * Where there are versions, the first one of each object is meant: a newer one was put by somebody else, and locking that
 * would leave the right one unlocked.
 */
async function forEachFirstVersion(
  store: ObjectStore,
  isNeeded: (key: string) => boolean,
  { signal }: CallOptions,
  work: (key: string, version: VersionOptions) => Promise<void>,
): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  async function* needed(): AsyncGenerator<{ readonly key: string; readonly versionId?: string }> {
    if (store.versions === undefined) {
      for await (const { key } of store.list("", options)) if (isNeeded(key)) yield { key };
      return;
    }
    let first: { readonly key: string; readonly versionId: string } | undefined;
    for await (const { key, versionId, isDeleteMarker } of store.versions.list("", options)) {
      if (isDeleteMarker || !isNeeded(key)) continue;
      if (first !== undefined && first.key !== key) yield first;
      first = { key, versionId };
    }
    if (first !== undefined) yield first;
  }
  await inParallel(needed(), { inFlightMax }, async ({ key, versionId }) => {
    await work(key, { ...options, ...(versionId === undefined ? {} : { versionId }) });
  });
}

function locksOf({ locks, url }: ObjectStore): ObjectLocks {
  if (locks !== undefined) return locks;
  throw new Failure("unsupported", {
    message: `${url} cannot lock objects, or its repository was not created for it: use an S3 bucket that was created with Object Lock`,
  });
}
