import { strict as assert } from "node:assert";
import { isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import { type LockedObject, lockedObjectsIn } from "../../ports/object-lock.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import type { CondemnedList } from "../session/condemned.ts";
import type { CollectorSession } from "./collector-session.ts";
import type { ListInWork } from "./condemn.ts";
import { inParallel } from "./in-parallel.ts";
import { rewriteIndexObject } from "./index-without.ts";
import type { Inventory } from "./inventory.ts";
import { flags, type ObjectTable } from "./object-table.ts";
import { indexObjectsInFlight, removalsInFlight, removeBatch } from "./safety.ts";
import { parseStoredName, storedName } from "./stored-name.ts";

export type Remover = {
  readonly repository: Repository;
  readonly collector: CollectorSession;
  readonly onRemoved: (objects: number) => void;
  readonly logger: Logger;
  readonly options: CallOptions;
};

export type Removal = Remover & {
  readonly inventory: Inventory;
  /** Whom they waited for has ended, and what points need has been marked since. */
  readonly lists: readonly ListInWork[];
  readonly isNeededRelocation: (name: string) => boolean;
  /** Roots of the lists that stay after all. */
  readonly isKeptRoot: (rootKey: string) => boolean;
  /** Marks what these roots need: the store refused to remove them, so that they are points still. */
  readonly keep: (rootKeys: readonly string[]) => Promise<void>;
};

export type Removed = {
  objects: number;
  bytes: number;
  reprieved: number;
  isUnsharedGone: boolean;
  readonly locked: LockedObject[];
  readonly index: { rewritten: number; removed: number; readonly unreadable: string[] };
};

type Sized = { readonly name: string; readonly sizeBytes: number };

/**
 * Removes what the lists name and nothing needs: roots first, then the index stops naming the packs, then all else. The lists go at the
 * very end: who dies before is continued.
 */
export async function removeCondemned(o: Removal, removed: Removed): Promise<void> {
  const roots = unique(o.lists, ({ list }) => list.roots).filter((name) =>
    o.inventory.roots.has(name),
  );
  const going = roots.filter((name) => !o.isKeptRoot(name));
  const stay = new Set(roots.filter(o.isKeptRoot));
  const sizeOf = (name: string): number => o.inventory.roots.get(name) ?? 0;
  const locked = await removeNames(
    o,
    removed,
    going.map((name) => ({ name, sizeBytes: sizeOf(name) })),
  );
  await o.keep([...locked]);
  const rest = chooseRest(o, stay);
  removed.reprieved += stay.size;
  const isIndexFree = rest.packs.length === 0 || (await dropFromIndex(o, removed, isDoomed(o)));
  if (isIndexFree) await removeNames(o, removed, rest.packs);
  await removeNames(o, removed, rest.data);
  for (const { key } of removed.locked) stay.add(key);
  // Packs that a locked object of the index still names stay condemned: who reads it there uses nothing on a list.
  if (!isIndexFree) for (const { name } of rest.packs) stay.add(name);
  await replaceLists(o, o.lists, (list) => restOf(list, stay));
}

const isDoomed =
  ({ inventory }: Removal) =>
  (packId: Uint8Array): boolean => {
    const { pack } = inventory.tables;
    const row = pack.find(packId);
    return row >= 0 && pack.has(row, flags.doomed);
  };

/** What stays condemned. */
function restOf(list: CondemnedList, stay: ReadonlySet<string>): CondemnedList {
  const isLeft = (name: string): boolean => stay.has(name);
  return {
    madeAt: list.madeAt,
    roots: list.roots.filter(isLeft),
    packs: list.packs.filter((hex) => isLeft(storedName("pack", Buffer.from(hex, "hex")))),
    // Theirs to end who compact.
    compacting: list.compacting,
    objects: list.objects.filter(isLeft),
  };
}

export function nothingRemoved(): Removed {
  const index = { rewritten: 0, removed: 0, unreadable: [] };
  return { objects: 0, bytes: 0, reprieved: 0, isUnsharedGone: false, locked: [], index };
}

type Rest = {
  readonly packs: readonly Sized[];
  readonly data: readonly Sized[];
};

/** Of what the lists name besides roots, what is there and is not needed; the rest stays. Packs are flagged as doomed. */
function chooseRest(o: Removal, stay: Set<string>): Rest {
  const { tables } = o.inventory;
  const packs: Sized[] = [];
  const data: Sized[] = [];
  const take = (table: ObjectTable, id: Uint8Array, name: string, into: Sized[]): void => {
    const row = table.find(id);
    if (row < 0 || !table.has(row, flags.listed)) return;
    if (table.has(row, flags.needed)) {
      stay.add(name);
      return;
    }
    table.set(row, flags.doomed);
    into.push({ name, sizeBytes: table.sizeBytes(row) });
  };
  for (const hex of unique(o.lists, ({ list }) => list.packs)) {
    const id = Buffer.from(hex, "hex");
    take(tables.pack, id, storedName("pack", id), packs);
  }
  for (const name of unique(o.lists, ({ list }) => list.objects)) {
    const parsed = parseStoredName(name);
    switch (parsed.kind) {
      case "disk":
      case "metadata":
        take(tables[parsed.kind], parsed.id, name, data);
        break;
      case "relocation": {
        const stored = o.inventory.relocations.get(name);
        if (stored === undefined) break;
        if (o.isNeededRelocation(name)) stay.add(name);
        else data.push({ name, sizeBytes: stored.sizeBytes });
        break;
      }
      default:
        // `checkList` has refused it.
        assert.fail(`${name} is of no kind that is removed`);
    }
  }
  return { packs, data };
}

/**
 * Removes what no other session can refer to. Of sessions that have a root now nothing goes but signs of life; of the others the start goes
 * first, so that nobody who wakes up finds a session that seems to be open.
 */
export async function removeUnshared(
  o: Remover,
  removed: Removed,
  planned: readonly Sized[],
  hasRoot: (sessionId: string) => boolean,
): Promise<void> {
  const going = planned.filter(({ name }) => {
    const parsed = parseStoredName(name);
    const isRecord = parsed.kind === "session" && !name.includes("/renew-");
    return !isRecord || !hasRoot(parsed.sessionId);
  });
  const isStart = ({ name }: Sized): boolean => name.includes("/start-");
  const starts = going.filter(isStart);
  const left = new Set(Array.from(await removeNames(o, removed, starts), sessionOfName));
  const rest = going.filter((its) => !isStart(its) && !left.has(sessionOfName(its.name)));
  await removeNames(o, removed, rest);
}

/** Empty for what is no object of a session. */
function sessionOfName(name: string): string {
  const parsed = parseStoredName(name);
  return parsed.kind === "session" ? parsed.sessionId : "";
}

/** Who died between a list's removal and its note's has left them. */
export async function removeOrphanedNotes(o: Remover, names: readonly string[]): Promise<void> {
  await removeNames(
    o,
    undefined,
    names.map((name) => ({ name, sizeBytes: 0 })),
  );
}

/** Afresh, for sessions that ended meanwhile may have put more of it. False when an object that names doomed packs cannot be removed. */
export async function dropFromIndex(
  o: Remover,
  removed: Removed,
  isGoing: (packId: Uint8Array) => boolean,
): Promise<boolean> {
  const { repository, collector, options } = o;
  const names: string[] = [];
  for await (const { key } of repository.store.list("index/", options)) {
    if (parseStoredName(key).kind === "index") names.push(key);
  }
  const onNoSpace = (name: string): void =>
    o.logger.warn("no space to write a part of the index anew: its chunks are stored again", {
      key: name,
    });
  const { newId } = collector;
  const rewrite = { objects: repository.objects, isDoomed: isGoing, newId, onNoSpace };
  let isFree = true;
  await inParallel(names, { inFlightMax: indexObjectsInFlight }, async (name) => {
    await collector.alive();
    const outcome = await rewriteIndexObject(rewrite, name, options);
    if (outcome.state === "kept") return;
    if (outcome.state === "unreadable") {
      o.logger.warn("index object unreadable", { key: name, reason: outcome.reason });
      removed.index.unreadable.push(name);
    }
    const locked = await removeUnlocked(o, [name]);
    removed.locked.push(...locked);
    if (locked.length > 0) isFree = false;
    else if (outcome.state === "replaced" && outcome.replacedBy !== undefined) {
      removed.index.rewritten += 1;
    } else removed.index.removed += 1;
  });
  return isFree;
}

/** Returns what is locked. */
export async function removeNames(
  o: Remover,
  removed: Removed | undefined,
  names: readonly Sized[],
): Promise<ReadonlySet<string>> {
  const locked = new Set<string>();
  const batches: (readonly Sized[])[] = [];
  for (let at = 0; at < names.length; at += removeBatch) {
    batches.push(names.slice(at, at + removeBatch));
  }
  await inParallel(batches, { inFlightMax: removalsInFlight }, async (batch) => {
    await o.collector.alive();
    const keys = batch.map(({ name }) => name);
    for (const found of await removeUnlocked(o, keys)) {
      locked.add(found.key);
      removed?.locked.push(found);
    }
    if (removed === undefined) return;
    for (const { name, sizeBytes } of batch) {
      if (locked.has(name)) continue;
      removed.objects += 1;
      removed.bytes += sizeBytes;
    }
    o.onRemoved(removed.objects);
  });
  return locked;
}

async function removeUnlocked(
  { repository, options }: Remover,
  keys: readonly string[],
): Promise<readonly LockedObject[]> {
  // Rule 10: only names of known forms.
  for (const key of keys) assert(removableKinds.has(parseStoredName(key).kind), key);
  try {
    await repository.store.remove(keys, options);
    return [];
  } catch (error) {
    if (!isFailure(error, "storage.locked")) throw error;
    return lockedObjectsIn(error);
  }
}

const removableKinds: ReadonlySet<string> = new Set([
  "root",
  "pack",
  "disk",
  "metadata",
  "checkpoint",
  "relocation",
  "session",
  "note",
  "probe",
  "index",
  "condemned",
]);

/**
 * What was reprieved or is locked stays condemned, in a list that has nothing else: as long as it is there, nobody begins to use it. So "not needed"
 * once found after the wait stays true, and a collector that slept before its removals takes nothing away that others use since.
 */
export async function replaceLists(
  o: Remover,
  lists: readonly ListInWork[],
  restOfList: (list: CondemnedList) => CondemnedList,
): Promise<void> {
  const { condemned } = o.repository.sessions;
  for (const { name, list, waitedNames } of lists) {
    const rest = restOfList(list);
    if (sizeOfList(rest) === sizeOfList(list)) continue;
    if (sizeOfList(rest) > 0) {
      const replacedBy = await condemned.put(rest, o.options);
      await condemned.putWaited(replacedBy, [], o.options);
    }
    // The list before its note: a note alone says nothing, a list alone would be waited for again.
    await removeNames(o, undefined, [{ name, sizeBytes: 0 }]);
    await removeNames(
      o,
      undefined,
      waitedNames.map((its) => ({ name: its, sizeBytes: 0 })),
    );
  }
}

/** Lists that only compact are theirs to go on with who compact. */
export function isForCollection({ roots, packs, objects }: CondemnedList): boolean {
  return roots.length + packs.length + objects.length > 0;
}

export function sizeOfList({ roots, packs, compacting, objects }: CondemnedList): number {
  return roots.length + packs.length + compacting.length + objects.length;
}

function unique(
  lists: readonly ListInWork[],
  namesOf: (list: ListInWork) => readonly string[],
): readonly string[] {
  return [...new Set(lists.flatMap(namesOf))];
}
