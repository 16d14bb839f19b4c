import type { LockedObject } from "../../ports/object-lock.ts";
import type { OpenSession } from "./collect-report.ts";

/** What a compaction found and did; of a dry run, what it would do. Packs, and bytes as they are stored. */
export type CompactReport = {
  readonly isDryRun: boolean;
  /** `done`: all that was worth it is moved. `waiting`: sessions are open that began before; the next run goes on. `more`: the limit was reached. `locked`: Object Lock keeps some. */
  readonly state: "done" | "waiting" | "more" | "locked";
  readonly points: number;
  readonly stored: Packs;
  /** Condemned for compaction now, and what is needed of them. */
  readonly chosen: Packs & { readonly neededBytes: number };
  /** Condemned by earlier runs that did not come to their end. */
  readonly earlier: { readonly packs: number };
  readonly moved: { readonly packs: number; readonly records: number; readonly bytes: number };
  readonly written: Packs & { readonly relocations: number };
  readonly removed: Packs;
  /** Removed less written. */
  readonly freedBytes: number;
  readonly index: {
    readonly rewritten: number;
    readonly removed: number;
    readonly unreadable: readonly string[];
  };
  /** Packs that were left as they are. */
  readonly left: {
    /** Not all that is needed of them opens: repair finds it, or says that it is lost. */
    readonly damaged: readonly { readonly name: string; readonly reason: string }[];
    /** Worth it, but Object Lock would keep the old copy. */
    readonly locked: readonly LockedObject[];
    /** Moved so often that readers would not follow one more move. */
    readonly movedTooOften: number;
    /** Worth it, but beyond the limit. */
    readonly beyondLimit: number;
  };
  /** Needed packs under key epochs before the active one, as they were before this run. */
  readonly old: Packs;
  readonly waitingFor: readonly OpenSession[];
  readonly fenced: readonly {
    readonly sessionId: string;
    readonly adopted: readonly string[];
  }[];
  /** Why a run that is no dry run would refuse; only in the report of a dry run. */
  readonly brake?: string;
  readonly seconds: number;
};

export type Packs = { readonly packs: number; readonly bytes: number };
