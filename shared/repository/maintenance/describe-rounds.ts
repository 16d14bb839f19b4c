import { isCommitted } from "../session/session-state.ts";
import type { FencedSession } from "../session/sessions.ts";
import type { Removal } from "./brake.ts";
import type { CollectReport, OpenSession } from "./collect-report.ts";
import type { ListInWork } from "./condemn.ts";
import { flags } from "./object-table.ts";
import { allOf, classify, largestOf } from "./plan-collection.ts";
import { isForCollection, type Removed, sizeOfList } from "./remove-condemned.ts";
import { halfEmptyShare } from "./safety.ts";
import type { Survey } from "./survey.ts";

/** What one round did; the rounds of one run are added up. */
export type Round = {
  readonly survey: Survey;
  readonly removed: Removed | undefined;
  readonly fenced: readonly FencedSession[];
  readonly waiting: readonly ListInWork[];
  readonly waitingFor: readonly OpenSession[];
  readonly waitedMs: number;
};

export function describeRounds(rounds: readonly Round[]): Omit<CollectReport, "seconds"> {
  const [first] = rounds;
  const last = rounds.at(-1);
  if (first === undefined || last === undefined) throw new Error("a run has a round at least");
  const { inventory, judged } = first.survey;
  const lists = [...first.survey.lists.values()].filter(isForCollection);
  const removals = rounds.map(({ removed }) => removed).filter((removed) => removed !== undefined);
  const sum = (of: (removed: Removed) => number): number =>
    removals.reduce((total, removed) => total + of(removed), 0);
  const all = <T>(of: (removed: Removed) => readonly T[]): readonly T[] => removals.flatMap(of);
  const locked = all((removed) => removed.locked);
  const plans = rounds.map(({ survey }) => survey.plan);
  const plan = {
    roots: plans.flatMap(({ roots }) => roots),
    packs: plans.flatMap(({ packs }) => packs),
    objects: plans.flatMap(({ objects }) => objects),
    unshared: plans.flatMap(({ unshared }) => unshared),
    isCut: plans.at(-1)?.isCut === true,
  };
  const classes = classify(plan);
  return {
    isDryRun: false,
    state: stateOf(last, { isCut: plan.isCut, isLocked: locked.length > 0 }),
    stored: { ...inventory.stored, packs: countListed(first.survey) },
    points: {
      kept: last.survey.judged.kept.filter((key) => isPoint(last.survey, key)).length,
      expired: [...new Set(rounds.flatMap(({ survey }) => survey.judged.expired))],
      held: judged.held,
    },
    garbage: {
      objects: classes.reduce((total, { objects }) => total + objects, 0),
      bytes: classes.reduce((total, { bytes }) => total + bytes, 0),
      classes,
      largest: largestOf(plan),
    },
    earlier: {
      lists: lists.length,
      objects: lists.reduce((total, list) => total + sizeOfList(list), 0),
    },
    removed: { objects: sum(({ objects }) => objects), bytes: sum(({ bytes }) => bytes) },
    reprieved: sum(({ reprieved }) => reprieved),
    index: {
      rewritten: sum(({ index }) => index.rewritten),
      removed: sum(({ index }) => index.removed),
      unreadable: all(({ index }) => index.unreadable),
      merged: 0,
    },
    waitingFor: last.waitingFor,
    fenced: rounds.flatMap(({ fenced }) => fenced),
    locked,
    unexplained: last.survey.unexplained,
    missingPacks: last.survey.missingPacks,
    halfEmpty: halfEmptyPacks(last.survey),
    unknown: inventory.unknown,
  };
}

function stateOf(
  { waiting }: Round,
  { isCut, isLocked }: { readonly isCut: boolean; readonly isLocked: boolean },
): CollectReport["state"] {
  if (waiting.length > 0) return "waiting";
  if (isCut) return "more";
  return isLocked ? "locked" : "done";
}

/** For the brake: what would go in this run, earlier lists included. */
export function weigh({ inventory, judged, plan, lists, known }: Survey): Removal {
  const { pack } = inventory.tables;
  let bytes = 0;
  let packs = plan.packs.length;
  for (const { sizeBytes } of allOf(plan)) bytes += sizeBytes;
  for (const hex of new Set([...lists.values()].flatMap((list) => list.packs))) {
    const row = pack.find(Buffer.from(hex, "hex"));
    if (row < 0 || !pack.has(row, flags.listed) || pack.has(row, flags.needed)) continue;
    bytes += pack.sizeBytes(row);
    packs += 1;
  }
  const kept = judged.kept.filter((key) => isCommitted(key, inventory.sessions) && known.has(key));
  const points = judged.expired.length;
  return {
    bytes,
    ofBytes: inventory.stored.bytes,
    points,
    ofPoints: points + kept.length,
    packs,
  };
}

function isPoint({ inventory }: Survey, rootKey: string): boolean {
  return isCommitted(rootKey, inventory.sessions);
}

function countListed({ inventory }: Survey): number {
  const { pack } = inventory.tables;
  let count = 0;
  for (let row = 0; row < pack.count(); row += 1) if (pack.has(row, flags.listed)) count += 1;
  return count;
}

/** Of packs that stay. What is needed of them is known from below: compaction reads more before it decides. */
function halfEmptyPacks({ inventory }: Survey): CollectReport["halfEmpty"] {
  const { pack } = inventory.tables;
  const found = { packs: 0, bytes: 0, neededBytes: 0 };
  for (let row = 0; row < pack.count(); row += 1) {
    if (!pack.has(row, flags.listed) || !pack.has(row, flags.needed)) continue;
    const neededBytes = pack.neededBytes(row);
    if (neededBytes >= pack.sizeBytes(row) * halfEmptyShare) continue;
    found.packs += 1;
    found.bytes += pack.sizeBytes(row);
    found.neededBytes += neededBytes;
  }
  return found;
}
