import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import { readKnownDamage } from "../pack/damage.ts";
import type { PointSummary, Repository } from "../repository.ts";
import { isOpen } from "../session/session-state.ts";
import { readStartOf } from "./collector-session.ts";
import { type Inventory, takeInventory } from "./inventory.ts";
import type { KnownRoot } from "./known-root.ts";
import { createMarker } from "./mark.ts";
import { flags, type ObjectTable } from "./object-table.ts";
import { halfEmptyShare } from "./safety.ts";

/**
 * What a repository holds, by one listing of everything and by reading roots and disk records: no pack. Nothing is written, and no session is
 * begun: what changes meanwhile may be counted or not. Memory: as a collection's (`inventory.ts`), and one summary a point.
 */
export type RepositoryStats = {
  readonly points: {
    readonly count: number;
    readonly vms: number;
    /** Sizes of their disks, holes included. */
    readonly logicalBytes: number;
    /** ISO 8601. */
    readonly oldest: string | undefined;
    readonly newest: string | undefined;
    /** Roots that do not open. */
    readonly unreadable: number;
    /** Roots that are no points: attempts under way, or that came to nothing. */
    readonly uncommitted: number;
    /** Known to be damaged. */
    readonly damaged: number;
  };
  readonly stored: {
    readonly objects: number;
    readonly bytes: number;
    readonly classes: readonly StoredClass[];
    /** Objects that are not Holdfast's. */
    readonly unknown: number;
  };
  readonly packs: {
    readonly count: number;
    readonly bytes: number;
    /** Share of the repository's pack size that a pack has on average. */
    readonly fill: number;
    /** Of packs that points need: at least so much of them is needed. */
    readonly neededBytes: number;
    /** Of sessions that are open: not to be judged yet. */
    readonly inWorkBytes: number;
    /** At most, needed by no point; undefined when a root or record does not open. */
    readonly garbageBytes: number | undefined;
    readonly halfEmpty: number;
  };
  readonly sessions: readonly {
    readonly sessionId: string;
    readonly kind: string;
    readonly holder: string;
    readonly startedAt: string;
  }[];
  readonly condemned: readonly {
    readonly name: string;
    readonly madeAt: string;
    readonly packs: number;
    readonly compacting: number;
    readonly roots: number;
    readonly objects: number;
  }[];
  readonly keys: {
    /** Those that this passphrase opens. */
    readonly epochs: readonly number[];
    readonly activeEpoch: number;
    /** Objects under `keys/`. */
    readonly objects: number;
  };
  /** Why `garbageBytes` is not known. */
  readonly unreadable: string | undefined;
};

export type StoredClass = {
  readonly kind: string;
  readonly objects: number;
  readonly bytes: number;
};

export type StatsProgress = {
  readonly stage: "listing" | "reading points" | "reading disks";
  readonly done: number;
};

export type StatsSurvey = {
  readonly stats: RepositoryStats;
  /** A few of the packs that are there, spread evenly; all when there are no more. */
  readonly samplePacks: (
    count: number,
  ) => Iterable<{ readonly packId: Uint8Array; readonly sizeBytes: number }>;
};

export async function surveyStats(
  repository: Repository,
  onProgress: (progress: StatsProgress) => void,
  options: CallOptions = {},
): Promise<StatsSurvey> {
  const { sessions } = repository;
  const inventory = await takeInventory(
    repository,
    async (done) => onProgress({ stage: "listing", done }),
    options,
  );
  const { points, roots } = await countPoints(repository, onProgress, options);
  const unreadable = await mark(repository, inventory, roots, onProgress, options);
  const open = [];
  for (const state of inventory.sessions.values()) {
    if (!isOpen(state)) continue;
    const start = await readStartOf(repository, state, options);
    const { kind = "unknown", holder = "", startedAt = "" } = start ?? {};
    open.push({ sessionId: state.sessionId, kind, holder, startedAt });
  }
  const condemned = Array.from(await sessions.condemned.list(options), ([name, list]) => ({
    name,
    madeAt: new Date(list.madeAt).toISOString(),
    packs: list.packs.length,
    compacting: list.compacting.length,
    roots: list.roots.length,
    objects: list.objects.length,
  }));
  let keyObjects = 0;
  for await (const _ of repository.store.list("keys/", options)) keyObjects += 1;
  const { masters, activeEpoch } = repository.secrets;
  const openIds = new Set(open.map(({ sessionId }) => sessionId));
  const packs = describePacks(repository, inventory.tables.pack, openIds);
  return {
    stats: {
      points,
      stored: describeStored(inventory),
      packs: unreadable === undefined ? packs : { ...packs, garbageBytes: undefined },
      sessions: open,
      condemned,
      keys: { epochs: [...masters.keys()].sort((a, b) => a - b), activeEpoch, objects: keyObjects },
      unreadable,
    },
    samplePacks: (count) => sample(inventory.tables.pack, count),
  };
}

async function countPoints(
  repository: Repository,
  onProgress: (progress: StatsProgress) => void,
  options: CallOptions,
): Promise<{
  readonly points: RepositoryStats["points"];
  readonly roots: readonly KnownRoot[];
}> {
  const counts = { count: 0, logicalBytes: 0, unreadable: 0, uncommitted: 0 };
  const vms = new Set<string>();
  const roots: KnownRoot[] = [];
  let oldest: string | undefined;
  let newest: string | undefined;
  const listed = repository.listPoints({
    ...options,
    onUnreadable: () => {
      counts.unreadable += 1;
    },
    onUncommitted: () => {
      counts.uncommitted += 1;
    },
  });
  for await (const point of listed) {
    counts.count += 1;
    counts.logicalBytes += point.disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    vms.add(point.vmKey);
    if (oldest === undefined || point.takenAt < oldest) oldest = point.takenAt;
    if (newest === undefined || point.takenAt > newest) newest = point.takenAt;
    roots.push(rootOf(point));
    onProgress({ stage: "reading points", done: counts.count });
  }
  const damaged = (await readKnownDamage(repository, options)).points.size;
  return { points: { ...counts, vms: vms.size, oldest, newest, damaged }, roots };
}

function rootOf(point: PointSummary): KnownRoot {
  const { rootKey, pointId, vmKey, vmName, takenAt, fence, metadataKey, disks } = point;
  const recordKeys = disks.map(({ recordKey }) => recordKey);
  return { rootKey, pointId, vmKey, vmName, takenAt, fence, metadataKey, recordKeys };
}

/** Why not all is marked, if so. */
async function mark(
  repository: Repository,
  inventory: Inventory,
  roots: readonly KnownRoot[],
  onProgress: (progress: StatsProgress) => void,
  options: CallOptions,
): Promise<string | undefined> {
  const onRead = async ({ recordsRead }: { readonly recordsRead: number }): Promise<void> =>
    onProgress({ stage: "reading disks", done: recordsRead });
  try {
    await createMarker({ repository, inventory, onRead }).mark(roots, options);
    return undefined;
  } catch (error) {
    if (!isFailure(error, "collect.damaged")) throw error;
    return error.message;
  }
}

function describeStored(inventory: Inventory): RepositoryStats["stored"] {
  const { stored, tables, index, relocations, sessionSizes, notes, probes, unknown } = inventory;
  const ofSizes = (kind: string, sizes: Iterable<number>): StoredClass => {
    let objects = 0;
    let bytes = 0;
    for (const size of sizes) {
      objects += 1;
      bytes += size;
    }
    return { kind, objects, bytes };
  };
  const classes = [
    ofSizes("packs", sizesIn(tables.pack)),
    ofSizes("disk records", sizesIn(tables.disk)),
    ofSizes("VM metadata", sizesIn(tables.metadata)),
    ofSizes("checkpoints", sizesIn(tables.checkpoint)),
    ofSizes("points", inventory.roots.values()),
    ofSizes("index", index.values()),
    ofSizes("sessions", sessionSizes.values()),
    ofSizes(
      "relocations",
      Array.from(relocations.values(), ({ sizeBytes }) => sizeBytes),
    ),
    ofSizes("damage and verification", notes.values()),
    ofSizes(
      "probes",
      Array.from(probes, ({ sizeBytes }) => sizeBytes),
    ),
  ];
  const sum = (of: (its: StoredClass) => number): number =>
    classes.reduce((all, its) => all + of(its), 0);
  classes.push({
    kind: "config, keys, condemned lists and others",
    // A root may have come since all was listed.
    objects: Math.max(0, stored.objects - sum(({ objects }) => objects)),
    bytes: Math.max(0, stored.bytes - sum(({ bytes }) => bytes)),
  });
  return { ...stored, classes, unknown: unknown.count };
}

function* sizesIn(table: ObjectTable): Generator<number> {
  for (let row = 0; row < table.count(); row += 1) {
    if (table.has(row, flags.listed)) yield table.sizeBytes(row);
  }
}

function describePacks(
  { settings }: Repository,
  table: ObjectTable,
  open: ReadonlySet<string>,
): RepositoryStats["packs"] {
  const sum = { count: 0, bytes: 0, neededBytes: 0, inWorkBytes: 0, garbageBytes: 0, halfEmpty: 0 };
  for (let row = 0; row < table.count(); row += 1) {
    if (!table.has(row, flags.listed)) continue;
    const sizeBytes = table.sizeBytes(row);
    sum.count += 1;
    sum.bytes += sizeBytes;
    const sessionId = Buffer.from(table.id(row).subarray(0, 8)).toString("hex");
    if (table.has(row, flags.needed)) {
      // More than the pack has would be damage of a record; it is no garbage, that much is known.
      const needed = Math.min(table.neededBytes(row), sizeBytes);
      sum.neededBytes += needed;
      sum.garbageBytes += sizeBytes - needed;
      if (needed < sizeBytes * halfEmptyShare) sum.halfEmpty += 1;
    } else if (open.has(sessionId)) sum.inWorkBytes += sizeBytes;
    else sum.garbageBytes += sizeBytes;
  }
  const fill = sum.count === 0 ? 0 : sum.bytes / (sum.count * settings.packBytes);
  return { ...sum, fill };
}

function* sample(
  table: ObjectTable,
  count: number,
): Generator<{ readonly packId: Uint8Array; readonly sizeBytes: number }> {
  const step = Math.max(1, table.count() / Math.max(1, count));
  for (let at = 0, given = 0; at < table.count() && given < count; at += step) {
    const row = Math.floor(at);
    if (!table.has(row, flags.listed)) continue;
    given += 1;
    yield { packId: Uint8Array.from(table.id(row)), sizeBytes: table.sizeBytes(row) };
  }
}
