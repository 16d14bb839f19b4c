/**
 * What a repository needs at scale: `npm run bench:scale` prints the tables of docs/scale.md. Requests a backup, restore and collection are
 * counted on a store in memory, on small disks with small packs; the rest is arithmetic with the assumptions below.
 */
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { collect } from "@holdfast/shared/repository/maintenance/collect";
import { createRepository, type Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { createChunkIndexLoader } from "../../mover/pipeline/chunk-index-loader.ts";
import { createMemoryReader } from "../../mover/pipeline/memory-disk.ts";
import { newPoint, restore, transfer } from "../../mover/pipeline/test-repository.ts";

const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;
const tib = 1024 * gib;

/** Everything that is not measured. Prices: dollars, AWS us-east-1's list, rounded; they are there to compare with, not to bill by. */
const assumed = {
  vmDiskBytes: 100 * gib,
  /** Share of a disk that holds data, and of the data that other VMs have too. */
  usedShare: 0.5,
  sharedShare: 0.4,
  compressedShare: 0.5,
  dailyChangeShare: 0.01,
  pointsKept: 30,
  chunkBytes: 92 * kib,
  packBytes: 32 * mib,
  leafBytes: 64 * mib,
  verifiedEveryDays: 30,
  rangeBytes: 8 * mib,
  dollarsPerGibMonth: 0.0225,
  dollarsPerThousandPuts: 0.005,
  dollarsPerThousandGets: 0.0004,
};

type Calls = { put: number; get: number; head: number; list: number; remove: number };

function counting(store: ObjectStore): { readonly store: ObjectStore; readonly take: () => Calls } {
  const none = (): Calls => ({ put: 0, get: 0, head: 0, list: 0, remove: 0 });
  let calls = none();
  return {
    store: {
      ...store,
      put: (...call) => {
        calls.put += 1;
        return store.put(...call);
      },
      get: (...call) => {
        calls.get += 1;
        return store.get(...call);
      },
      getRange: (...call) => {
        calls.get += 1;
        return store.getRange(...call);
      },
      head: (...call) => {
        calls.head += 1;
        return store.head(...call);
      },
      list: (...call) => {
        calls.list += 1;
        return store.list(...call);
      },
      remove: (...call) => {
        calls.remove += 1;
        return store.remove(...call);
      },
    },
    take: () => {
      const taken = calls;
      calls = none();
      return taken;
    },
  };
}

type Counted = { readonly fixed: Calls; readonly packs: number };

/** One disk, one point: what a backup costs besides its packs. */
async function countBackup(
  repository: Repository,
  take: () => Calls,
  disk: Uint8Array,
  pointId: string,
  previous?: { readonly recordKey: string; readonly rootKey: string },
): Promise<Counted & { readonly recordKey: string; readonly rootKey: string }> {
  take();
  const signal = new AbortController().signal;
  const session = await repository.sessions.begin({
    kind: "backup",
    holder: "scale",
    pins: previous === undefined ? [] : [previous.rootKey],
    silenceSeconds: 3600,
  });
  const index = await createChunkIndexLoader(repository, { logger }).load(session, signal);
  let packs = 0;
  const { recordKey } = await transfer(repository, createMemoryReader(disk), {
    session,
    ...index,
    index: {
      ...index.index,
      add: (...call) => {
        packs += 1;
        index.index.add(...call);
      },
    },
    mode: "full",
    ...(previous && { previous: previous.recordKey }),
  });
  const { rootKey } = await repository.writePoint(session, newPoint(recordKey, { pointId }));
  const fixed = take();
  return { fixed: { ...fixed, put: fixed.put - packs }, packs, recordKey, rootKey };
}

async function count() {
  const { store, take } = counting(createMemoryObjectStore());
  const repository = await createRepository({
    store,
    passphrase: "scale",
    clock,
    random,
    passphraseCost: { memoryKiB: 64, passes: 1 },
    settings: {
      packBytes: mib,
      chunkBytesMin: 8 * kib,
      chunkBytesTarget: 16 * kib,
      chunkBytesMax: 64 * kib,
      leafBytes: 8 * mib,
    },
  });
  const disk = Uint8Array.from(random(32 * mib));
  const full = await countBackup(repository, take, disk, "point-1");
  disk.set(random(mib), 5 * mib);
  const again = await countBackup(repository, take, disk, "point-2", full);
  await restore(repository, again.recordKey, { sizeBytes: disk.length });
  const restored = take();
  await collect({ repository, holder: "scale", observer: "h", allowShare: 1, logger });
  const collected = take();
  return { full, again, restored, collected };
}

function line(...cells: readonly string[]): void {
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
}

const text = (calls: Calls): string =>
  Object.entries(calls)
    .filter(([, times]) => times > 0)
    .map(([name, times]) => `${times} ${name}`)
    .join(", ");

function bytes(value: number): string {
  for (const [unit, size] of [
    ["PiB", 1024 * tib],
    ["TiB", tib],
    ["GiB", gib],
    ["MiB", mib],
    ["KiB", kib],
  ] as const) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

const number = (value: number): string => Math.round(value).toLocaleString("en");
const dollars = (value: number): string => `$${value < 10 ? value.toFixed(2) : number(value)}`;

function model(storedBytes: number, counted: Awaited<ReturnType<typeof count>>) {
  const a = assumed;
  const uniquePerVm = a.vmDiskBytes * a.usedShare * (1 - a.sharedShare);
  const changedPerDay = a.vmDiskBytes * a.usedShare * a.dailyChangeShare;
  const perVm = (uniquePerVm + changedPerDay * a.pointsKept) * a.compressedShare;
  const vms = storedBytes / perVm;
  const points = vms * a.pointsKept;
  const chunks = storedBytes / (a.chunkBytes * a.compressedShare);
  const packs = storedBytes / a.packBytes;
  const newPacksPerDay = Math.max(1, (changedPerDay * a.compressedShare) / a.packBytes);
  const recordBytes = (a.vmDiskBytes / a.leafBytes) * 160;
  const { again } = counted;
  const backups = vms * 30;
  const puts = backups * (again.fixed.put + newPacksPerDay);
  const gets = backups * (again.fixed.get + again.fixed.head);
  // Daily: all objects listed a thousand at a time, every point's disk record read.
  const objects = packs + points * 6;
  const collectionLists = (objects / 1000) * 2 * 30;
  const collectionGets = points * 2 * 30;
  const verifyGets = (storedBytes / a.rangeBytes) * (30 / a.verifiedEveryDays);
  const lists = backups * again.fixed.list + collectionLists;
  const requestDollars =
    ((puts + lists) * a.dollarsPerThousandPuts +
      (gets + collectionGets + verifyGets) * a.dollarsPerThousandGets) /
    1000;
  const storageDollars = (storedBytes / gib) * a.dollarsPerGibMonth;
  return {
    vms,
    points,
    chunks,
    packs,
    recordBytes,
    puts,
    gets,
    collectionLists,
    collectionGets,
    verifyGets,
    lists,
    requestDollars,
    storageDollars,
    indexBytes: chunks * 24,
    indexStored: chunks * 28,
    hookIndexBytes:
      (chunks / 2 ** Math.max(1, Math.ceil(Math.log2((chunks * 24) / (256 * mib))))) * 24,
    recordsRead: points * recordBytes,
    collectorBytes: packs * 40 + points * 40,
  };
}

const counted = await count();
process.stdout.write("## Requests, counted\n\n");
line("work", "requests besides its data packs", "data packs");
line("---", "---", "---");
line("first backup of a disk", text(counted.full.fixed), String(counted.full.packs));
line("the next one", text(counted.again.fixed), String(counted.again.packs));
line("restore of that disk (4 leaves, 33 packs of 1 MiB)", text(counted.restored), "");
line("collection over both points", text(counted.collected), "");

const sizes = [tib, 10 * tib, 100 * tib, 1024 * tib];
const models = sizes.map((size) => model(size, counted));
const row = (title: string, of: (one: ReturnType<typeof model>, at: number) => string): void =>
  line(title, ...models.map(of));
process.stdout.write("\n## A repository of so many stored bytes, a month\n\n");
line("stored", ...sizes.map(bytes));
line("---", ...sizes.map(() => "---"));
row("VMs of 100 GiB, a backup a day", ({ vms }) => number(vms));
row("points", ({ points }) => number(points));
row("chunks", ({ chunks }) => number(chunks));
row("packs", ({ packs }) => number(packs));
row("index in full: memory", ({ indexBytes }) => bytes(indexBytes));
row("index in full: to load", ({ indexStored }) => bytes(indexStored));
row("sparse index, 512 MiB: hooks", ({ indexBytes, hookIndexBytes }) =>
  indexBytes <= 512 * mib ? "not needed" : bytes(hookIndexBytes),
);
row("sparse index: to load", ({ indexBytes, indexStored }) =>
  indexBytes <= 512 * mib
    ? "not needed"
    : bytes(indexStored / 2 ** Math.max(1, Math.ceil(Math.log2(indexBytes / (256 * mib))))),
);
row("collector: memory for marks", ({ collectorBytes }) => bytes(collectorBytes));
row("collector: disk records read a run", ({ recordsRead }) => bytes(recordsRead));
row("PUT by backups", ({ puts }) => number(puts));
row("GET and HEAD by backups", ({ gets }) => number(gets));
row("LIST by backups and a collection a day", ({ lists }) => number(lists));
row("GET by a collection a day", ({ collectionGets }) => number(collectionGets));
row("GET by verification of everything", ({ verifyGets }) => number(verifyGets));
row("requests", ({ requestDollars }) => dollars(requestDollars));
row("storage", ({ storageDollars }) => dollars(storageDollars));
row("requests per TiB stored", ({ requestDollars }, at) =>
  dollars(requestDollars / ((sizes[at] ?? tib) / tib)),
);
