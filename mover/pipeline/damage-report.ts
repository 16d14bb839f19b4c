import type {
  DamagedDisk,
  DamagedPoint,
  VerifyReport,
} from "@holdfast/shared/contracts/standalone";
import type { PointSummary } from "@holdfast/shared/repository/repository";
import type { ByteRun } from "./leaf-plan.ts";

/** Collects what a verification finds, in the order in which points and ranges are told. */
export type DamageReport = {
  readonly object: (name: string, reason: string) => void;
  readonly harmless: (name: string, reason: string) => void;
  readonly metadata: (point: PointSummary, reason: string) => void;
  /** Ranges of one disk come in rising order. */
  readonly range: (point: PointSummary, diskKey: string, range: ByteRun, reason: string) => void;
  /** Leaves out points that expired while they were looked at. */
  readonly keepPoints: (
    isThere: (point: { readonly rootKey: string }) => Promise<boolean>,
  ) => Promise<void>;
  readonly isBlamed: (name: string) => boolean;
  readonly found: () => Pick<VerifyReport, "damagedPoints" | "damagedObjects" | "harmless">;
};

/** Of all disks together, so that a repository in ruins still has a report that fits in memory. */
const rangesMax = 100_000;
const reasonCharactersMax = 500;

type Draft<T> = { -readonly [Key in keyof T]: T[Key] };

export function createDamageReport(): DamageReport {
  const points = new Map<string, Draft<DamagedPoint>>();
  const objects = new Map<string, string>();
  const harmless = new Map<string, string>();
  let ranges = 0;

  function pointOf({ pointId, vmName, takenAt, rootKey }: PointSummary): Draft<DamagedPoint> {
    const known = points.get(rootKey);
    if (known !== undefined) return known;
    const point = { pointId, name: vmName, takenAt, rootKey, disks: [] };
    points.set(rootKey, point);
    return point;
  }

  function diskOf(point: PointSummary, diskKey: string, reason: string): Draft<DamagedDisk> {
    const { disks } = pointOf(point);
    const known = disks.find(({ disk }) => disk === diskKey);
    if (known !== undefined) return known;
    const sizeBytes = point.disks.find(({ key }) => key === diskKey)?.sizeBytes ?? 0;
    const disk: DamagedDisk = {
      disk: diskKey,
      sizeBytes,
      bytesDamaged: 0,
      ranges: [],
      rangesOmitted: 0,
      reason: reason.slice(0, reasonCharactersMax),
    };
    disks.push(disk);
    return disk;
  }

  return {
    object: (name, reason) => {
      if (!objects.has(name)) objects.set(name, reason.slice(0, reasonCharactersMax));
    },
    harmless: (name, reason) => {
      harmless.set(name, reason.slice(0, reasonCharactersMax));
    },
    metadata: (point, reason) => {
      pointOf(point).metadata = reason.slice(0, reasonCharactersMax);
    },
    range: (point, diskKey, { offset, length }, reason) => {
      const disk = diskOf(point, diskKey, reason);
      disk.bytesDamaged += length;
      const last = disk.ranges.at(-1);
      if (last !== undefined && disk.rangesOmitted === 0 && last.offset + last.length === offset) {
        last.length += length;
      } else if (ranges < rangesMax) {
        disk.ranges.push({ offset, length });
        ranges += 1;
      } else {
        disk.rangesOmitted += 1;
      }
    },
    keepPoints: async (isThere) => {
      for (const point of [...points.values()]) {
        if (!(await isThere(point))) points.delete(point.rootKey);
      }
    },
    isBlamed: (name) => objects.has(name),
    found: () => ({
      damagedPoints: [...points.values()],
      damagedObjects: listed(objects),
      harmless: listed(harmless),
    }),
  };
}

function listed(found: ReadonlyMap<string, string>): { object: string; reason: string }[] {
  return Array.from(found, ([object, reason]) => ({ object, reason }));
}
