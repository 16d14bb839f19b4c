import { expect, test } from "vitest";
import type { BackupSession, ReleaseRequest } from "../../ports/driver.ts";
import type { LedgerEntry } from "../../ports/ledger.ts";
import { planRelease } from "./release.ts";

const entry = (jobId: string, kind: string, kept = false): LedgerEntry => ({
  id: `${jobId}/${kind}`,
  jobId,
  kind,
  name: `${kind} of ${jobId}`,
  details: { forIncremental: true },
  kept,
});
const anchor = (jobId: string) => ({ strategy: "checkpoint" as const, state: { jobId } });
const request = (more: Partial<ReleaseRequest>): ReleaseRequest => ({
  externalId: "vm",
  session: undefined,
  outcome: "failed",
  previous: undefined,
  endedJobIds: [],
  ...more,
});
const session = (jobId: string | undefined) =>
  ({ anchor: jobId === undefined ? undefined : anchor(jobId) }) as BackupSession;
const ids = (entries: readonly LedgerEntry[]) => entries.map(({ id }) => id);

const entries = [
  entry("old", "overlay", true),
  entry("now", "overlay"),
  entry("now", "scratch"),
  entry("dead", "overlay"),
];

test("committed: the new anchor stays, everything else goes", () => {
  const plan = planRelease(
    entries,
    request({ outcome: "committed", session: session("now") }),
    "now",
  );
  expect(ids(plan.keep)).toEqual(["now/overlay"]);
  expect(ids(plan.remove)).toEqual(["old/overlay", "now/scratch", "dead/overlay"]);
});

test("committed without an anchor: nothing stays", () => {
  const plan = planRelease(
    entries,
    request({ outcome: "committed", session: session(undefined) }),
    "now",
  );
  expect(plan.keep).toEqual([]);
  expect(plan.remove).toHaveLength(4);
});

test("committed with the previous anchor going on: it stays", () => {
  const plan = planRelease(
    entries,
    request({ outcome: "committed", session: session("old") }),
    "now",
  );
  expect(ids(plan.keep)).toEqual(["old/overlay"]);
});

test("failed: only the job's own things and those of ended jobs go", () => {
  const plan = planRelease(entries, request({ previous: anchor("old") }), "now");
  expect(ids(plan.remove)).toEqual(["now/overlay", "now/scratch"]);
  const swept = planRelease(entries, request({ endedJobIds: ["dead", "old"] }), "now");
  expect(ids(swept.remove)).toEqual(["now/overlay", "now/scratch", "dead/overlay"]);
});

test("an ended job that had committed but died before marking its anchor keeps it", () => {
  const plan = planRelease(
    entries,
    request({ previous: anchor("dead"), endedJobIds: ["dead"] }),
    "now",
  );
  expect(ids(plan.remove)).toEqual(["now/overlay", "now/scratch"]);
});
