import type { LockedObject } from "../../ports/object-lock.ts";

/** Why something goes. */
export const collectReasons = [
  /** The root of a point that is to go. */
  "expired-point",
  /** A root that is no point: an attempt of which nothing came, or that a later one replaced. */
  "superseded-attempt",
  /** Of a backup that ended well, but no point needs it any more. */
  "not-needed",
  /** Of a backup that ended without a point. */
  "no-point",
  /** Of a transfer that has ended. */
  "checkpoint",
  /** Signs of life of sessions that have ended, and sessions of which nothing is left. */
  "session-record",
  /** Damage and verification records that newer ones replace. */
  "replaced",
  /** What a probe of the store has left. */
  "probe",
] as const;
export type CollectReason = (typeof collectReasons)[number];

export type CollectClass = {
  readonly reason: CollectReason;
  readonly objects: number;
  readonly bytes: number;
};

export type OpenSession = {
  readonly sessionId: string;
  readonly kind: string;
  readonly holder: string;
  /** ISO 8601, by its own clock. */
  readonly startedAt: string;
  /** Seconds since a sign of life was seen, on the clocks of collectors. */
  readonly silentForSeconds: number;
};

export type UnexplainedRoot = {
  readonly rootKey: string;
  /** Empty when the root is sealed under a key that is not known here. */
  readonly vmName: string;
  readonly pointId: string;
  /** ISO 8601. */
  readonly takenAt: string;
  /** At least; after that the root is garbage. */
  readonly keptForSeconds: number;
};

/** What a collection found and did; of a dry run, what it would do. */
export type CollectReport = {
  readonly isDryRun: boolean;
  /** `done`: all that was garbage is gone. `waiting`: sessions are open that began before; the next run goes on. `more`: the next run takes the rest. `locked`: Object Lock keeps some. */
  readonly state: "done" | "waiting" | "more" | "locked";
  readonly stored: { readonly objects: number; readonly bytes: number; readonly packs: number };
  readonly points: {
    readonly kept: number;
    readonly expired: readonly string[];
    /** They were to go, but open sessions use them. */
    readonly held: readonly string[];
  };
  /** Found in this run. */
  readonly garbage: {
    readonly objects: number;
    readonly bytes: number;
    readonly classes: readonly CollectClass[];
    readonly largest: readonly {
      readonly name: string;
      readonly sizeBytes: number;
      readonly reason: CollectReason;
    }[];
  };
  /** Of earlier runs that did not come to their end. */
  readonly earlier: { readonly lists: number; readonly objects: number };
  readonly removed: { readonly objects: number; readonly bytes: number };
  /** Needed again when it was looked at a second time. */
  readonly reprieved: number;
  readonly index: {
    readonly rewritten: number;
    readonly removed: number;
    readonly unreadable: readonly string[];
    /** Objects that were replaced by fewer, because there were many. */
    readonly merged: number;
  };
  readonly waitingFor: readonly OpenSession[];
  /** Sessions that were silent for so long that they were ended. */
  readonly fenced: readonly {
    readonly sessionId: string;
    readonly adopted: readonly string[];
  }[];
  readonly locked: readonly LockedObject[];
  /** Roots that are no points because objects of their sessions are gone: they and what they need stay for now. An alarm. */
  readonly unexplained: readonly UnexplainedRoot[];
  /** Packs that points need and that are not there. */
  readonly missingPacks: readonly string[];
  /** Worth compacting: packs of which little is needed, at least. */
  readonly halfEmpty: {
    readonly packs: number;
    readonly bytes: number;
    readonly neededBytes: number;
  };
  readonly unknown: { readonly count: number; readonly names: readonly string[] };
  /** Why a run that is no dry run would refuse; only in the report of a dry run. */
  readonly brake?: string;
  readonly seconds: number;
};
