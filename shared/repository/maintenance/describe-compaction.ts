import { isFailure } from "../../domain/failure.ts";
import type { LockedObject } from "../../ports/object-lock.ts";
import type { FencedSession } from "../session/sessions.ts";
import { type BrakeSettings, checkBrake, type Removal } from "./brake.ts";
import type { PackChoice } from "./choose-packs.ts";
import type { OpenSession } from "./collect-report.ts";
import type { CompactReport, Packs } from "./compact-report.ts";
import { type Moved, nothingMoved } from "./move-packs.ts";
import { flags } from "./object-table.ts";
import { nothingRemoved, type Removed } from "./remove-condemned.ts";
import { storedName } from "./stored-name.ts";
import type { Survey } from "./survey.ts";

/** What a compaction found worth doing. */
export type Planned = {
  readonly survey: Survey;
  readonly points: number;
  readonly choice: PackChoice;
};

/** What it has done so far. */
export type Done = { readonly moved: Moved; readonly removed: Removed };

/** For the brake: what would be gone for good. A mark that misses points shows in that. */
export function weighCompaction({ survey, points, choice }: Planned): Removal {
  let bytes = 0;
  for (const { sizeBytes, neededBytes } of choice.chosen) bytes += sizeBytes - neededBytes;
  const packs = choice.chosen.length;
  return { bytes, ofBytes: survey.inventory.stored.bytes, points: 0, ofPoints: points, packs };
}

export function brakeOf(o: BrakeSettings, planned: Planned): { readonly brake?: string } {
  try {
    checkBrake(weighCompaction(planned), o);
    return {};
  } catch (error) {
    if (!isFailure(error, "collect.brake")) throw error;
    return { brake: error.message };
  }
}

export function describeCompaction(
  { survey, points, choice }: Planned,
  ran?: Done & {
    readonly fenced: readonly FencedSession[];
    readonly waitingFor: readonly OpenSession[];
    readonly isWaiting: boolean;
  },
): Omit<CompactReport, "seconds"> {
  const { chosen } = choice;
  const moved = ran?.moved ?? nothingMoved();
  const removed = ran?.removed ?? nothingRemoved();
  const locked: readonly LockedObject[] = [...choice.locked, ...removed.locked];
  const beyondLimit = choice.beyondLimit;
  const earlier = [...survey.lists.values()].reduce((sum, list) => sum + list.compacting.length, 0);
  const sum = (of: (pack: (typeof chosen)[number]) => number): number =>
    chosen.reduce((total, pack) => total + of(pack), 0);
  return {
    isDryRun: false,
    state: ran?.isWaiting
      ? "waiting"
      : beyondLimit > 0
        ? "more"
        : locked.length > 0
          ? "locked"
          : "done",
    points,
    ...countPacks(survey),
    chosen: {
      packs: chosen.length,
      bytes: sum(({ sizeBytes }) => sizeBytes),
      neededBytes: sum(({ neededBytes }) => neededBytes),
    },
    earlier: { packs: earlier },
    moved: { packs: moved.emptied.length, records: moved.records, bytes: moved.bytes },
    written: {
      packs: moved.packsWritten,
      bytes: moved.bytesWritten,
      relocations: moved.relocations,
    },
    removed: { packs: removed.objects, bytes: removed.bytes },
    freedBytes: removed.bytes - moved.bytesWritten,
    index: removed.index,
    left: {
      damaged: moved.damaged.map(({ packId, reason }) => ({
        name: storedName("pack", Buffer.from(packId, "hex")),
        reason,
      })),
      locked,
      movedTooOften: choice.movedTooOften,
      beyondLimit,
    },
    waitingFor: ran?.waitingFor ?? [],
    fenced: ran?.fenced ?? [],
  };
}

function countPacks({ inventory }: Survey): Pick<CompactReport, "stored"> & {
  readonly old: Packs;
} {
  const { pack } = inventory.tables;
  const stored = { packs: 0, bytes: 0 };
  const old = { packs: 0, bytes: 0 };
  for (let row = 0; row < pack.count(); row += 1) {
    if (!pack.has(row, flags.listed)) continue;
    stored.packs += 1;
    stored.bytes += pack.sizeBytes(row);
    if (!pack.has(row, flags.needed) || !pack.has(row, flags.oldEpoch)) continue;
    old.packs += 1;
    old.bytes += pack.sizeBytes(row);
  }
  return { stored, old };
}
