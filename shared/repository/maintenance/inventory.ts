import { strict as assert } from "node:assert";
import { Failure } from "../../domain/failure.ts";
import type { CallOptions, ObjectHead } from "../../ports/object-store.ts";
import { relocationFolder } from "../pack/relocations.ts";
import type { Repository } from "../repository.ts";
import type { SessionState, SessionStates } from "../session/session-state.ts";
import { createObjectTable, flags, type ObjectTable } from "./object-table.ts";
import { parseStoredName, type RandomKind, randomKinds } from "./stored-name.ts";

/**
 * All that the store lists, in the order that everything rests on: first the objects, then the sessions, then the points. Whatever belongs to a
 * session that had ended when the sessions were listed was put before, so its points are among those listed after.
 */
export type Inventory = {
  readonly tables: Readonly<Record<RandomKind, ObjectTable>>;
  /** Sizes by name. */
  readonly index: ReadonlyMap<string, number>;
  readonly relocations: ReadonlyMap<string, StoredRelocation>;
  readonly sessionSizes: ReadonlyMap<string, number>;
  readonly probes: readonly ObjectHead[];
  readonly notes: ReadonlyMap<string, number>;
  /** What is not ours: some of the names. */
  readonly unknown: { readonly count: number; readonly names: readonly string[] };
  readonly sessions: SessionStates;
  /** Sizes of roots by name, as listed last. */
  readonly roots: ReadonlyMap<string, number>;
  /** Roots that were listed with the objects: of others, the session may have begun since the sessions were listed. */
  readonly rootsBefore: ReadonlySet<string>;
  readonly stored: { readonly objects: number; readonly bytes: number };
};

export type StoredRelocation = {
  readonly packId: Uint8Array;
  readonly sessionId: string;
  readonly sizeBytes: number;
};

const unknownNamed = 20;
const aliveEvery = 4096;

/** `onObjects` hears how many have been listed, so that it can show signs of life. Fails with `storage.unreachable` for a listing that cannot be trusted. */
export async function takeInventory(
  repository: Repository,
  onObjects: (count: number) => Promise<void>,
  options: CallOptions,
): Promise<Inventory> {
  const { store, random } = repository;
  const tables = Object.fromEntries(
    randomKinds.map((kind) => [kind, createObjectTable(random(8))]),
  ) as Record<RandomKind, ObjectTable>;
  const index = new Map<string, number>();
  const relocations = new Map<string, StoredRelocation>();
  const sessionSizes = new Map<string, number>();
  const notes = new Map<string, number>();
  const probes = new Map<string, ObjectHead>();
  const unknown = { count: 0, names: [] as string[] };
  const rootsBefore = new Set<string>();
  const stored = { objects: 0, bytes: 0 };

  function countUnknown(key: string): void {
    unknown.count += 1;
    if (unknown.names.length < unknownNamed) unknown.names.push(key);
  }

  /** False for what was listed already: some stores give an entry twice. */
  function add(head: ObjectHead): boolean {
    const { key, sizeBytes } = head;
    const name = parseStoredName(key);
    const put = <Value>(map: Map<string, Value>, value: Value): boolean => {
      if (map.has(key)) return false;
      map.set(key, value);
      return true;
    };
    switch (name.kind) {
      case "pack":
      case "disk":
      case "metadata":
      case "checkpoint": {
        const table = tables[name.kind];
        const row = table.add(name.id);
        if (table.has(row, flags.listed)) return false;
        table.set(row, flags.listed);
        table.setSizeBytes(row, sizeBytes);
        return true;
      }
      case "index":
        return put(index, sizeBytes);
      case "relocation":
        return put(relocations, { ...name, sizeBytes });
      case "session":
        return put(sessionSizes, sizeBytes);
      case "note":
        return put(notes, sizeBytes);
      case "probe":
        return put(probes, head);
      case "root":
        rootsBefore.add(key);
        return true;
      case "condemned":
      case "kept":
        return true;
      case "unknown":
        countUnknown(key);
        return true;
      default:
        return name satisfies never;
    }
  }

  for await (const head of store.list("", options)) {
    if (!add(head)) continue;
    stored.objects += 1;
    stored.bytes += head.sizeBytes;
    if (stored.objects % aliveEvery === 0) await onObjects(stored.objects);
  }
  const sessions = await repository.sessions.list(options);
  // Again, after the sessions: what a compaction has moved is needed by its relocations, as a disk's packs are by its root.
  for await (const { key, sizeBytes } of store.list(`${relocationFolder}/`, options)) {
    const name = parseStoredName(key);
    if (name.kind === "relocation") relocations.set(key, { ...name, sizeBytes });
  }
  const signed = new Set([...sessions.values()].flatMap(namesOf));
  for (const key of sessionSizes.keys()) if (!signed.has(key)) countUnknown(key);
  const roots = await listRoots(repository, options);
  await refuseLostRoots(repository, { seen: rootsBefore, roots }, options);
  return {
    tables,
    index,
    relocations,
    sessionSizes,
    probes: [...probes.values()],
    notes,
    unknown,
    sessions,
    roots,
    rootsBefore,
    stored,
  };
}

/** All objects of a session. */
export function namesOf(state: SessionState): readonly string[] {
  const { starts, renewals, fences, ends, endNones } = state;
  return [...starts, ...renewals, ...fences, ...[...ends.values()].flat(), ...endNones];
}

/** Names and sizes of all roots, points or not. */
export async function listRoots(
  repository: Repository,
  options: CallOptions,
): Promise<ReadonlyMap<string, number>> {
  const roots = new Map<string, number>();
  for await (const { key, sizeBytes } of repository.store.list("points/", options)) {
    if (parseStoredName(key).kind === "root") roots.set(key, sizeBytes);
  }
  return roots;
}

/** A root that one listing had and the next has not was removed in between, or the store answers with what was once. */
async function refuseLostRoots(
  { store }: Repository,
  {
    seen,
    roots,
  }: { readonly seen: ReadonlySet<string>; readonly roots: ReadonlyMap<string, number> },
  options: CallOptions,
): Promise<void> {
  for (const key of seen) {
    if (!roots.has(key) && (await store.head(key, options)) !== undefined) {
      throw unreliable(store.url, key);
    }
  }
}

export function unreliable(url: string, key: string): Failure {
  assert(key !== "");
  return new Failure("storage.unreachable", {
    message: `the listing of ${url} lacks ${key}, which is there: nothing is removed by a listing that cannot be trusted`,
    key,
  });
}
