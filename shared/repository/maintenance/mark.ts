import { Failure, isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { packNeeds } from "../extent-map/pack-needs.ts";
import { toHex } from "../format/bytes.ts";
import { packName } from "../pack/pack.ts";
import { readRelocation, relocationFolder } from "../pack/relocations.ts";
import type { Repository } from "../repository.ts";
import { inParallel } from "./in-parallel.ts";
import { type Inventory, unreliable } from "./inventory.ts";
import type { KnownRoot } from "./known-root.ts";
import { flags, type ObjectTable } from "./object-table.ts";
import { missingLooksMax, readsInFlight, recordBytesInFlight } from "./safety.ts";
import { parseStoredName } from "./stored-name.ts";

/**
 * Marks what points need, by their roots and disk records alone: no pack is read. Memory: the inventory's tables, and the records that
 * are read at the moment. What cannot be read stops the collection: what a damaged root or record needs is not known, and it may be healed.
 */
export type Marker = {
  /** Names of roots that were marked. */
  readonly marked: ReadonlySet<string>;
  /** Relocations that lead to what a point needs. */
  readonly neededRelocations: ReadonlySet<string>;
  /** Those that were marked already are left out. Fails with `collect.damaged`. */
  readonly mark: (
    roots: Iterable<KnownRoot>,
    options: CallOptions & {
      /** Records may be missing: the root is no point. What cannot be read fails all the same. */
      readonly alsoIncomplete?: boolean;
    },
  ) => Promise<void>;
};

export function createMarker(o: {
  readonly repository: Repository;
  readonly inventory: Inventory;
  readonly onRead: (progress: { readonly recordsRead: number }) => Promise<void>;
}): Marker {
  const { repository, inventory } = o;
  const { tables } = inventory;
  const marked = new Set<string>();
  const neededRelocations = new Set<string>();
  let recordNumber = 0;

  function need(table: ObjectTable, name: string): number {
    const parsed = parseStoredName(name);
    if (!("id" in parsed)) throw damaged(name, new Error("it is not a name of this format"));
    const row = table.add(parsed.id);
    table.set(row, flags.needed);
    return row;
  }

  function markEpoch(row: number, epoch: number | undefined): void {
    const isOld = epoch !== undefined && epoch < repository.secrets.activeEpoch;
    if (isOld) tables.pack.set(row, flags.oldEpoch);
  }

  async function readRecord(
    recordKey: string,
    { alsoIncomplete = false, ...options }: Parameters<Marker["mark"]>[1],
  ): Promise<void> {
    try {
      const needs = packNeeds(await repository.objects.get(recordKey, "disk-record", options));
      recordNumber += 1;
      for (const [position, packId] of needs.packIds.entries()) {
        const row = tables.pack.add(packId);
        tables.pack.set(row, flags.needed);
        tables.pack.need(row, recordNumber, needs.storedBytes[position] ?? 0);
        markEpoch(row, needs.epochs[position]);
      }
      await o.onRead({ recordsRead: recordNumber });
    } catch (error) {
      if (alsoIncomplete && isFailure(error, "object.not-found")) return;
      throw asDamage(error, recordKey);
    }
  }

  /** The packs that hold, besides or instead of a needed one, what is needed of it; over any number of moves. */
  async function followRelocations(options: CallOptions): Promise<void> {
    const followed = new Set(neededRelocations);
    for (;;) {
      const next = [...inventory.relocations].filter(([name, { packId }]) => {
        const row = tables.pack.find(packId);
        return !followed.has(name) && row >= 0 && tables.pack.has(row, flags.needed);
      });
      if (next.length === 0) return;
      await inParallel(next, { inFlightMax: readsInFlight }, async ([name, { packId }]) => {
        followed.add(name);
        neededRelocations.add(name);
        try {
          const { rows } = await readRelocation(repository, name, options);
          const needed = tables.pack.neededBytes(tables.pack.find(packId));
          recordNumber += 1;
          const number = recordNumber;
          for (const { to } of rows) {
            const row = tables.pack.add(to.packId);
            tables.pack.set(row, flags.needed);
            tables.pack.need(row, number, Math.min(to.storedLength, needed));
            markEpoch(row, to.epoch);
          }
        } catch (error) {
          throw asDamage(error, name);
        }
      });
    }
  }

  return {
    marked,
    neededRelocations,
    mark: async (roots, options) => {
      const records: { readonly key: string; readonly sizeBytes: number }[] = [];
      for (const root of roots) {
        if (marked.has(root.rootKey)) continue;
        marked.add(root.rootKey);
        need(tables.metadata, root.metadataKey);
        for (const key of root.recordKeys) {
          const row = need(tables.disk, key);
          if (tables.disk.has(row, flags.read)) continue;
          tables.disk.set(row, flags.read);
          records.push({ key, sizeBytes: tables.disk.sizeBytes(row) });
        }
      }
      await inParallel(
        records,
        {
          inFlightMax: readsInFlight,
          weightMax: recordBytesInFlight,
          weigh: ({ sizeBytes }) => sizeBytes,
        },
        ({ key }) => readRecord(key, options),
      );
      await followRelocations(options);
    },
  };
}

/** Packs that a point needs and that are neither there nor moved: damage that verification names in full. Up to `missingLooksMax` are looked up. */
export async function findMissingPacks(
  repository: Repository,
  inventory: Inventory,
  options: CallOptions,
): Promise<readonly string[]> {
  const { pack } = inventory.tables;
  const moved = new Set(Array.from(inventory.relocations.values(), ({ packId }) => toHex(packId)));
  const suspects: string[] = [];
  for (let row = 0; row < pack.count() && suspects.length < missingLooksMax; row += 1) {
    if (!pack.has(row, flags.needed) || pack.has(row, flags.listed)) continue;
    if (!moved.has(toHex(pack.id(row)))) suspects.push(packName(pack.id(row)));
  }
  const missing: string[] = [];
  await inParallel(suspects, { inFlightMax: readsInFlight }, async (name) => {
    const { store } = repository;
    // A point that was made since the objects were listed has packs that the listing lacks.
    if ((await store.head(name, options)) !== undefined) return;
    // What it was moved to would seem to be garbage.
    const relocations = `${relocationFolder}/${name.slice(name.lastIndexOf("/") + 1)}-`;
    for await (const { key } of store.list(relocations, options)) throw unreliable(store.url, key);
    missing.push(name);
  });
  return missing.sort();
}

export function asDamage(error: unknown, name: string): unknown {
  const isDamage = isFailure(error, "object.corrupt") || isFailure(error, "object.not-found");
  return isDamage ? damaged(name, error) : error;
}

function damaged(name: string, cause: Error): Failure {
  return new Failure("collect.damaged", {
    message: `${name} cannot be read (${cause.message}), so it is not known what its point needs: nothing is removed`,
    key: name,
    cause,
  });
}
