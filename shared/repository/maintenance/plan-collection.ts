import { toHex } from "../format/bytes.ts";
import { isOpen, type SessionState, sessionOfRoot } from "../session/session-state.ts";
import type { CollectClass, CollectReason } from "./collect-report.ts";
import { type Inventory, namesOf } from "./inventory.ts";
import type { RootsJudged } from "./known-root.ts";
import type { Marker } from "./mark.ts";
import { flags } from "./object-table.ts";
import { largestShown } from "./safety.ts";
import { type RandomKind, randomKinds, storedName } from "./stored-name.ts";

/** One object that is to go. Nothing is removed that is not in a condemned list made of these. */
export type Planned = {
  readonly name: string;
  readonly sizeBytes: number;
  readonly reason: CollectReason;
};

export type CollectionPlan = {
  readonly roots: readonly Planned[];
  readonly packs: readonly Planned[];
  readonly objects: readonly Planned[];
  /** What no other session can refer to, whatever it does: it needs no list, and goes last. Of sessions with a root then, nothing goes. */
  readonly unshared: readonly Planned[];
  /** There is more than one collection takes. */
  readonly isCut: boolean;
};

/**
 * What is garbage: all that belongs to sessions which had ended before the points were listed, and that no point needs. `isCondemned` leaves out what
 * an earlier list names already.
 */
export function planCollection(o: {
  readonly inventory: Inventory;
  readonly judged: RootsJudged;
  readonly marker: Marker;
  /** Damage and verification records that others replace. */
  readonly replacedNotes: readonly string[];
  /** Folders of probes that are no one's any more. */
  readonly oldProbes: readonly string[];
  readonly isCondemned: (name: string) => boolean;
  readonly objectsMax: number;
}): CollectionPlan {
  const { inventory, judged, isCondemned } = o;
  const room = { left: o.objectsMax, isCut: false };
  const into = (list: Planned[]) => (planned: Planned) => {
    if (isCondemned(planned.name)) return;
    room.left -= 1;
    if (room.left >= 0) list.push(planned);
    else room.isCut = true;
  };
  const roots: Planned[] = [];
  const packs: Planned[] = [];
  const objects: Planned[] = [];
  const unshared: Planned[] = [];
  planRoots(inventory, judged, into(roots));
  planRelocations(o, into(objects));
  planNotes(o, into(unshared));
  planSessions(inventory, judged, into(unshared));
  planRandomNames(inventory, (planned, kind, hasFailed) => {
    // Only a point names a disk record or metadata, and of a session that failed there is none to build on.
    const isUnshared = kind === "checkpoint" || (kind !== "pack" && hasFailed);
    into(kind === "pack" ? packs : isUnshared ? unshared : objects)(planned);
  });
  return { roots, packs, objects, unshared, isCut: room.isCut };
}

type Add = (planned: Planned) => void;

function planRoots(inventory: Inventory, judged: RootsJudged, add: Add): void {
  const sizeBytes = (name: string): number => inventory.roots.get(name) ?? 0;
  for (const name of judged.expired) {
    add({ name, sizeBytes: sizeBytes(name), reason: "expired-point" });
  }
  for (const name of judged.superseded) {
    add({ name, sizeBytes: sizeBytes(name), reason: "superseded-attempt" });
  }
}

function planRelocations(
  { inventory, marker }: { readonly inventory: Inventory; readonly marker: Marker },
  add: Add,
): void {
  for (const [name, { sessionId, sizeBytes }] of inventory.relocations) {
    if (marker.neededRelocations.has(name) || isOpen(inventory.sessions.get(sessionId))) continue;
    add({ name, sizeBytes, reason: "not-needed" });
  }
}

function planNotes(
  o: {
    readonly inventory: Inventory;
    readonly replacedNotes: readonly string[];
    readonly oldProbes: readonly string[];
  },
  add: Add,
): void {
  for (const name of o.replacedNotes) {
    add({ name, sizeBytes: o.inventory.notes.get(name) ?? 0, reason: "replaced" });
  }
  for (const { key: name, sizeBytes } of o.inventory.probes) {
    if (o.oldProbes.some((folder) => name.startsWith(folder))) {
      add({ name, sizeBytes, reason: "probe" });
    }
  }
}

/** Sessions without a root that stays, as a whole; of the others the signs of life, once they have ended. */
function planSessions(inventory: Inventory, judged: RootsJudged, add: Add): void {
  const gone = new Set([...judged.expired, ...judged.superseded]);
  const withRoots = new Set<string>();
  for (const rootKey of inventory.roots.keys()) {
    if (!gone.has(rootKey)) withRoots.add(sessionOfRoot(rootKey)?.sessionId ?? "");
  }
  for (const state of inventory.sessions.values()) {
    if (isOpen(state)) continue;
    const names = withRoots.has(state.sessionId) ? state.renewals : namesOf(state);
    for (const name of names) {
      const sizeBytes = inventory.sessionSizes.get(name) ?? 0;
      add({ name, sizeBytes, reason: "session-record" });
    }
  }
}

function planRandomNames(
  inventory: Inventory,
  add: (planned: Planned, kind: RandomKind, hasFailed: boolean) => void,
): void {
  for (const kind of randomKinds) {
    const table = inventory.tables[kind];
    for (let row = 0; row < table.count(); row += 1) {
      if (!table.has(row, flags.listed) || table.has(row, flags.needed)) continue;
      const id = table.id(row);
      const session = inventory.sessions.get(toHex(id.subarray(0, 8)));
      if (isOpen(session)) continue;
      const reason = reasonOf(kind === "checkpoint", session);
      const hasFailed = session !== undefined && session.endNones.length > 0;
      add({ name: storedName(kind, id), sizeBytes: table.sizeBytes(row), reason }, kind, hasFailed);
    }
  }
}

function reasonOf(isCheckpoint: boolean, session: SessionState | undefined): CollectReason {
  if (isCheckpoint) return "checkpoint";
  // Of a session of which nothing is left, it was a point that is gone.
  return session !== undefined && session.endNones.length > 0 ? "no-point" : "not-needed";
}

/** Counts and bytes by reason, the heaviest first. */
export function classify(plan: CollectionPlan): readonly CollectClass[] {
  const classes = new Map<CollectReason, { objects: number; bytes: number }>();
  for (const { reason, sizeBytes } of allOf(plan)) {
    const its = classes.get(reason) ?? { objects: 0, bytes: 0 };
    its.objects += 1;
    its.bytes += sizeBytes;
    classes.set(reason, its);
  }
  return Array.from(classes, ([reason, its]) => ({ reason, ...its })).sort(
    (left, right) => right.bytes - left.bytes,
  );
}

export function* allOf(plan: CollectionPlan): Generator<Planned> {
  yield* plan.roots;
  yield* plan.packs;
  yield* plan.objects;
  yield* plan.unshared;
}

export function largestOf(plan: CollectionPlan): readonly Planned[] {
  let largest: Planned[] = [];
  for (const planned of allOf(plan)) {
    if (largest.length >= largestShown && planned.sizeBytes <= (largest.at(-1)?.sizeBytes ?? 0)) {
      continue;
    }
    largest = [...largest, planned]
      .sort((left, right) => right.sizeBytes - left.sizeBytes)
      .slice(0, largestShown);
  }
  return largest;
}

/** In hexadecimal, as condemned lists have it. */
export function packIdOf({ name }: Planned): string {
  return name.slice(name.lastIndexOf("/") + 1);
}
