import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { leafRange } from "../extent-map/disk-records.ts";
import { leafEntries } from "../extent-map/leaf.ts";
import { createLeafStore } from "../extent-map/leaf-store.ts";
import type { LeafRef } from "../extent-map/leaf-table.ts";
import { toHex } from "../format/bytes.ts";
import { createRelocations, readRelocation } from "../pack/relocations.ts";
import type { Repository } from "../repository.ts";
import { inParallel } from "./in-parallel.ts";
import type { KnownRoot } from "./known-root.ts";
import { asDamage } from "./mark.ts";
import { createObjectTable } from "./object-table.ts";
import { readsInFlight } from "./safety.ts";

/**
 * Which records of some packs the points need, to the record: from the leaves that name these packs, and from relocations of packs that
 * were moved into them. What cannot be read stops it: an unknown need is no small one.
 */
export type NeededRecords = {
  /** Stored lengths by offset. Empty when nothing of it is needed. */
  readonly of: (packId: string) => ReadonlyMap<number, number>;
  /** Position of the pack in the order in which points were read: packs of one disk stay together, and in its order. */
  readonly order: (packId: string) => number;
  /** The disk that needed the pack first. */
  readonly diskOf: (packId: string) => string;
};

/** Which packs a relocation leads from and to, by its name; ids in hexadecimal. */
export type RelocationEdges = ReadonlyMap<
  string,
  { readonly from: string; readonly to: ReadonlySet<string> }
>;

type Need = { readonly records: Map<number, number>; order: number; disk: string };
type Work = {
  readonly repository: Repository;
  readonly alive: () => Promise<void>;
};

/** Fails with `collect.damaged`. */
export async function readRelocationEdges(
  { repository, alive }: Work,
  names: Iterable<string>,
  options: CallOptions,
): Promise<RelocationEdges> {
  const edges = new Map<string, { from: string; to: ReadonlySet<string> }>();
  await inParallel(names, { inFlightMax: readsInFlight }, async (name) => {
    try {
      const { packId, rows } = await readRelocation(repository, name, options);
      const to = new Set(rows.map((row) => toHex(row.to.packId)));
      edges.set(name, { from: toHex(packId), to });
    } catch (error) {
      throw asDamage(error, name);
    }
    await alive();
  });
  return edges;
}

/** How many moves lead to each pack at most; packs that nothing was moved into are left out. */
export function movesTo(edges: RelocationEdges): ReadonlyMap<string, number> {
  const moves = new Map<string, number>();
  // No longer chain can be without a circle.
  for (let round = 0; round <= edges.size; round += 1) {
    let isChanged = false;
    for (const { from, to } of edges.values()) {
      const next = Math.min((moves.get(from) ?? 0) + 1, movesCountedMax);
      for (const packId of to) {
        if ((moves.get(packId) ?? 0) >= next) continue;
        moves.set(packId, next);
        isChanged = true;
      }
    }
    if (!isChanged) break;
  }
  return moves;
}

const movesCountedMax = 64;

/** Memory: some 100 bytes for each record that is needed of `packIds` and of packs that were moved into them. Fails with `collect.damaged`. */
export async function findNeededRecords(
  o: Work & {
    readonly roots: Iterable<KnownRoot>;
    /** Roots whose records need not be there: they are no points. */
    readonly mayLack: (rootKey: string) => boolean;
    readonly edges: RelocationEdges;
    /** In hexadecimal. */
    readonly packIds: Iterable<string>;
  },
  options: CallOptions,
): Promise<NeededRecords> {
  const needs = needsWithSources(o.packIds, o.edges);
  await scanRoots(o, needs, options);
  await followMoves(o, needs, options);
  const nothing: ReadonlyMap<number, number> = new Map();
  return {
    of: (packId) => needs.get(packId)?.records ?? nothing,
    order: (packId) => needs.get(packId)?.order ?? Number.POSITIVE_INFINITY,
    diskOf: (packId) => needs.get(packId)?.disk ?? "",
  };
}

/** With all packs from which any number of moves leads to one of these. */
function needsWithSources(
  packIds: Iterable<string>,
  edges: RelocationEdges,
): ReadonlyMap<string, Need> {
  const fresh = (): Need => ({
    records: new Map(),
    order: Number.POSITIVE_INFINITY,
    disk: "",
  });
  const needs = new Map<string, Need>();
  for (const packId of packIds) needs.set(packId, fresh());
  for (let before = -1; before !== needs.size; ) {
    before = needs.size;
    for (const { from, to } of edges.values()) {
      if (!needs.has(from) && [...to].some((id) => needs.has(id))) needs.set(from, fresh());
    }
  }
  return needs;
}

async function scanRoots(
  o: Work & {
    readonly roots: Iterable<KnownRoot>;
    readonly mayLack: (rootKey: string) => boolean;
  },
  needs: ReadonlyMap<string, Need>,
  options: CallOptions,
): Promise<void> {
  const { repository, alive } = o;
  const leaves = createLeafStore({ ...repository, relocations: createRelocations(repository) });
  const leavesSeen = createObjectTable(repository.random(8));
  const recordsSeen = new Set<string>();
  let seen = 0;

  function note(disk: string, packId: Uint8Array): Need | undefined {
    const need = needs.get(toHex(packId));
    if (need?.order === Number.POSITIVE_INFINITY) {
      seen += 1;
      need.order = seen;
      need.disk = disk;
    }
    return need;
  }

  /** Leaves with the same contents need the same of data packs. */
  function isNewLeaf({ summaryId, entriesId }: LeafRef): boolean {
    const both = new Uint8Array(16);
    for (let at = 0; at < 16; at += 1) both[at] = (summaryId[at] ?? 0) ^ (entriesId[at + 16] ?? 0);
    const before = leavesSeen.count();
    leavesSeen.add(both);
    return leavesSeen.count() > before;
  }

  async function scanDisk(root: KnownRoot, recordKey: string): Promise<void> {
    const record = await repository.readDiskRecord(recordKey, options);
    const disk = `${root.vmKey}/${record.diskKey}`;
    const toRead: { readonly index: number; readonly ref: LeafRef }[] = [];
    for (let index = 0; index < record.leaves.count; index += 1) {
      const ref = record.leaves.get(index);
      if (ref === undefined || ref === "hole") continue;
      const its = note(disk, ref.packId)?.records;
      its?.set(ref.offset, ref.summaryStored);
      its?.set(ref.offset + ref.summaryStored, ref.entriesStored);
      let isWanted = false;
      for (const { packId } of ref.packs) if (note(disk, packId) !== undefined) isWanted = true;
      if (isWanted && isNewLeaf(ref)) toRead.push({ index, ref });
    }
    await inParallel(toRead, { inFlightMax: readsInFlight }, async ({ index, ref }) => {
      const { leaf } = await leaves.read(ref, { index, ...leafRange(record, index) }, options);
      for (const { pack, packOffset, storedLength } of leafEntries(leaf)) {
        needs.get(toHex(pack.packId))?.records.set(packOffset, storedLength);
      }
      await alive();
    });
  }

  for (const root of o.roots) {
    for (const recordKey of root.recordKeys) {
      if (recordsSeen.has(recordKey)) continue;
      recordsSeen.add(recordKey);
      try {
        await scanDisk(root, recordKey);
      } catch (error) {
        if (o.mayLack(root.rootKey) && isFailure(error, "object.not-found")) continue;
        if (await isRootGone(repository, root, error, options)) break;
        throw asDamage(error, recordKey);
      }
      await alive();
    }
  }
}

/** A collection takes a root away before what it needs. */
async function isRootGone(
  { store }: Repository,
  { rootKey }: KnownRoot,
  error: unknown,
  options: CallOptions,
): Promise<boolean> {
  if (!isFailure(error, "object.not-found")) return false;
  return (await store.head(rootKey, options)) === undefined;
}

/** What is needed of a pack that was moved, is needed of those that it was moved to. */
async function followMoves(
  o: Work & { readonly edges: RelocationEdges },
  needs: ReadonlyMap<string, Need>,
  options: CallOptions,
): Promise<void> {
  const names = [...o.edges].flatMap(([name, { from, to }]) =>
    needs.has(from) && [...to].some((id) => needs.has(id)) ? [name] : [],
  );
  for (let isChanged = names.length > 0; isChanged; ) {
    isChanged = false;
    for (const name of names) {
      const { packId, rows } = await readRelocation(o.repository, name, options).catch(
        (error: unknown) => {
          throw asDamage(error, name);
        },
      );
      const source = needs.get(toHex(packId));
      for (const { offset, to } of rows) {
        const target = needs.get(toHex(to.packId));
        if (source === undefined || target === undefined || !source.records.has(offset)) continue;
        if (target.records.has(to.offset)) continue;
        target.records.set(to.offset, to.storedLength);
        if (target.order === Number.POSITIVE_INFINITY) {
          target.order = source.order;
          target.disk = source.disk;
        }
        isChanged = true;
      }
      await o.alive();
    }
  }
}
