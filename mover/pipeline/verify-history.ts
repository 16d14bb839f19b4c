import type { Logger } from "@holdfast/shared/ports/logger";
import { createObjectTable } from "@holdfast/shared/repository/maintenance/object-table";
import {
  encodeVerified,
  hourMs,
  readVerified,
  type VerifiedPack,
  type VerifyRun,
  verifiedFolder,
} from "@holdfast/shared/repository/maintenance/verified";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { PutNew } from "./verify-notes.ts";
import type { PackToRead } from "./verify-packs.ts";

/**
 * All packs of the store with when each was last read whole and found right; some dozen bytes a pack. What a run reads is remembered as it goes, so a
 * killed run is continued, and the packs that waited longest are read first.
 */
export type VerifyHistory = {
  /** Of packs in the store. */
  readonly packs: number;
  readonly bytesStored: number;
  /** What is to be read in this run, longest unread first, else in the order of names: packs of one backup lie together. */
  readonly due: Iterable<PackToRead>;
  readonly packsDue: number;
  readonly bytesDue: number;
  /** This run goes on where that one was cut off; milliseconds since 1970. */
  readonly resumedFrom: number | undefined;
  readonly isListed: (packId: Uint8Array) => boolean;
  /** It was not due when the run began. */
  readonly isTrusted: (packId: Uint8Array) => boolean;
  /** It is to be read in this run still. */
  readonly isDue: (packId: Uint8Array) => boolean;
  /** It was read in this run and found right. */
  readonly wasRead: (packId: Uint8Array) => boolean;
  readonly good: (pack: PackToRead) => Promise<void>;
  /** Read, and due in the next run again. */
  readonly damaged: (pack: PackToRead) => void;
  /** Remembers the rest. `isComplete`: nothing that was due is left. */
  readonly end: (isComplete: boolean) => Promise<void>;
  readonly ages: () => VerifiedAges;
  /** Verified objects that do not open. */
  readonly unreadable: ReadonlyMap<string, string>;
};

/** Stored bytes by when their pack was last read whole; each byte counts once. */
export type VerifiedAges = {
  readonly day: number;
  readonly week: number;
  readonly month: number;
  readonly older: number;
  readonly never: number;
};

/** A part is put after this many packs or minutes: as much is read again after a kill. */
const packsPerPart = 128;
const partMs = 60_000;
/** More objects than this are merged into one by the next run. */
const partsMax = 32;
/** A run that was cut off longer ago is not continued: what it read is too old to count as read now. */
const resumeMs = 14 * 24 * hourMs;

const packStates = { trusted: 0, due: 1, read: 2, damaged: 3 } as const;

export async function openVerifyHistory(o: {
  readonly repository: Repository;
  /** Packs not read within this time are due; absent: all are. */
  readonly everyMs?: number;
  /** Not to go on where another run was cut off. */
  readonly restart?: boolean;
  /** Undefined: nothing is remembered. */
  readonly putNew: PutNew | undefined;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): Promise<VerifyHistory> {
  const { repository, signal } = o;
  const { clock, random } = repository;
  const startedMs = clock.now();
  const table = createObjectTable(random(8));
  let hours = new Uint32Array(1024);
  let bytesStored = 0;
  for await (const { key, sizeBytes } of repository.store.list("packs/", { signal })) {
    const packId = packIdOf(key);
    if (packId === undefined) continue;
    const row = table.add(packId);
    table.setSizeBytes(row, sizeBytes);
    bytesStored += sizeBytes;
    if (row >= hours.length) hours = grown(hours);
  }
  const hourNow = Math.floor(startedMs / hourMs);
  // An hour that is still to come was written by a clock that is wrong.
  const note = ({ packId, hour }: VerifiedPack): void => {
    const row = table.find(packId);
    if (row >= 0 && hour <= hourNow && hour > (hours[row] ?? 0)) hours[row] = hour;
  };
  const found = await readVerified(repository, note, { signal });
  const isWhole = o.everyMs === undefined;
  const unfinished = isResumable(found.unfinished, startedMs) ? found.unfinished : undefined;
  const resumed = isWhole && o.restart !== true ? unfinished : undefined;
  const run: VerifyRun = resumed ?? { runId: Uint8Array.from(random(16)), runStartedAt: startedMs };
  const hourDue = isWhole
    ? resumed === undefined
      ? Number.POSITIVE_INFINITY
      : Math.floor(resumed.runStartedAt / hourMs)
    : Math.floor((startedMs - (o.everyMs ?? 0)) / hourMs);

  const dueRows = Uint32Array.from(
    Array.from({ length: table.count() }, (_, row) => row).filter(
      (row) => (hours[row] ?? 0) < hourDue,
    ),
  );
  // Of a run over all, only the order of names counts.
  if (!isWhole)
    dueRows.sort((left, right) => (hours[left] ?? 0) - (hours[right] ?? 0) || left - right);
  const states = new Uint8Array(table.count());
  for (const row of dueRows) states[row] = packStates.due;
  const stateOf = (packId: Uint8Array): number | undefined => {
    const row = table.find(packId);
    return row < 0 ? undefined : states[row];
  };
  function* due(): Generator<PackToRead> {
    for (const row of dueRows) {
      yield { packId: Uint8Array.from(table.id(row)), sizeBytes: table.sizeBytes(row) };
    }
  }

  let waiting: VerifiedPack[] = [];
  let savedMs = startedMs;

  async function put(
    part: VerifyRun & { readonly isWhole: boolean },
    packs: readonly VerifiedPack[],
    more: { readonly isLast?: boolean; readonly replaces?: readonly string[] } = {},
  ): Promise<void> {
    const replaces = (more.replaces ?? []).map((name) =>
      Buffer.from(name.slice(verifiedFolder.length + 1), "hex"),
    );
    const isLast = more.isLast ?? false;
    const plain = encodeVerified({ ...part, isLast, replaces, packs });
    await o.putNew?.(verifiedFolder, "verified", plain);
  }

  async function save(isLast: boolean): Promise<void> {
    const packs = waiting;
    waiting = [];
    savedMs = clock.now();
    if (packs.length > 0 || isLast) await put({ ...run, isWhole }, packs, { isLast });
  }

  if (found.current.length > partsMax) {
    const packs: VerifiedPack[] = [];
    for (let row = 0; row < table.count(); row += 1) {
      const hour = hours[row] ?? 0;
      if (hour > 0) packs.push({ packId: Uint8Array.from(table.id(row)), hour });
    }
    // Whoever continues the run that was cut off must still find it.
    const carried = unfinished ?? run;
    const keepsRun = unfinished !== undefined && o.restart !== true;
    await put({ ...carried, isWhole: keepsRun || isWhole }, packs, { replaces: found.current });
  }

  return {
    packs: table.count(),
    bytesStored,
    due: due(),
    packsDue: dueRows.length,
    bytesDue: dueRows.reduce((sum, row) => sum + table.sizeBytes(row), 0),
    resumedFrom: resumed?.runStartedAt,
    isListed: (packId) => table.find(packId) >= 0,
    isTrusted: (packId) => stateOf(packId) === packStates.trusted,
    isDue: (packId) => stateOf(packId) === packStates.due,
    wasRead: (packId) => stateOf(packId) === packStates.read,
    good: async ({ packId }) => {
      const row = table.find(packId);
      const hour = Math.floor(clock.now() / hourMs);
      states[row] = packStates.read;
      hours[row] = hour;
      waiting.push({ packId, hour });
      if (waiting.length >= packsPerPart || clock.now() - savedMs >= partMs) await save(false);
    },
    damaged: ({ packId }) => {
      states[table.find(packId)] = packStates.damaged;
    },
    end: (isComplete) => save(isComplete),
    ages: () => agesOf(table, hours, Math.floor(clock.now() / hourMs)),
    unreadable: new Map(Array.from(found.unreadable, ([name, { message }]) => [name, message])),
  };
}

function agesOf(
  table: ReturnType<typeof createObjectTable>,
  hours: Uint32Array,
  hourNow: number,
): VerifiedAges {
  const ages = { day: 0, week: 0, month: 0, older: 0, never: 0 };
  for (let row = 0; row < table.count(); row += 1) {
    const hour = hours[row] ?? 0;
    const age = hourNow - hour;
    const kind =
      hour === 0
        ? "never"
        : age <= 24
          ? "day"
          : age <= 7 * 24
            ? "week"
            : age <= 30 * 24
              ? "month"
              : "older";
    ages[kind] += table.sizeBytes(row);
  }
  return ages;
}

function isResumable(run: VerifyRun | undefined, nowMs: number): boolean {
  if (run === undefined) return false;
  const ageMs = nowMs - run.runStartedAt;
  return ageMs >= 0 && ageMs <= resumeMs;
}

/** Undefined for a name that no pack can have. */
export function packIdOf(key: string): Uint8Array | undefined {
  const hex = /^packs\/([0-9a-f]{2})\/(\1[0-9a-f]{30})$/.exec(key)?.[2];
  return hex === undefined ? undefined : Uint8Array.from(Buffer.from(hex, "hex"));
}

function grown(old: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(old.length * 2);
  larger.set(old);
  return larger;
}
