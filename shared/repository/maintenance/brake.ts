import { Failure } from "../../domain/failure.ts";
import { removedShareMax } from "./safety.ts";

/** What a run would remove, beside what there is. */
export type Removal = {
  readonly bytes: number;
  readonly ofBytes: number;
  readonly points: number;
  readonly ofPoints: number;
  readonly packs: number;
};

export type BrakeSettings = {
  /** Above 0, up to 1; absent: `removedShareMax`. */
  readonly allowShare?: number | undefined;
  /** There may be no point left. */
  readonly allowEmpty?: boolean | undefined;
};

/** Fails with `collect.brake` when a run would remove too much to be meant. */
export function checkBrake(removal: Removal, settings: BrakeSettings): void {
  const shareMax = settings.allowShare ?? removedShareMax;
  if (!(shareMax > 0 && shareMax <= 1)) {
    throw new Failure("input.invalid", {
      message: `a share of ${shareMax} is not above 0 and up to 1`,
    });
  }
  const { bytes, ofBytes, points, ofPoints, packs } = removal;
  const isEmpty = ofPoints - points <= 0;
  if (isEmpty && packs > 0 && settings.allowEmpty !== true) {
    throw new Failure("collect.brake", {
      message: `no recovery point would be left, and ${packs} packs would go: if that is meant, say --allow-empty`,
      ...removal,
    });
  }
  for (const [what, some, all] of [
    ["stored bytes", bytes, ofBytes],
    ["recovery points", points, ofPoints],
  ] as const) {
    const share = all === 0 ? 0 : some / all;
    if (share <= shareMax) continue;
    const percent = Math.min(100, Math.ceil(share * 100));
    throw new Failure("collect.brake", {
      message: `${some} of ${all} ${what} would go, ${percent}% where ${Math.floor(shareMax * 100)}% are allowed: if that is meant, say --allow-share ${percent}%`,
      ...removal,
    });
  }
}
