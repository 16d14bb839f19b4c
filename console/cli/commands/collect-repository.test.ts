import type { CollectReport } from "@holdfast/shared/contracts/standalone";
import { expect, test } from "vitest";
import type { MoverProcess } from "../mover-process.ts";
import { runCli } from "../testing.ts";

const report: CollectReport = {
  isDryRun: false,
  state: "done",
  stored: { objects: 90, bytes: 5 * 1024 ** 3, packs: 60 },
  points: { kept: 4, expired: ["points/a/p1"], held: [] },
  garbage: {
    objects: 12,
    bytes: 3 * 1024 ** 2,
    classes: [{ reason: "not-needed", objects: 12, bytes: 3 * 1024 ** 2 }],
    largest: [{ name: "packs/aa/aa", sizeBytes: 1024, reason: "not-needed" }],
  },
  earlier: { lists: 0, objects: 0 },
  removed: { objects: 12, bytes: 3 * 1024 ** 2 },
  reprieved: 0,
  index: { rewritten: 1, removed: 2, unreadable: [], merged: 0 },
  waitingFor: [],
  fenced: [],
  locked: [],
  missingPacks: [],
  unexplained: [],
  halfEmpty: { packs: 0, bytes: 0, neededBytes: 0 },
  unknown: { count: 0, names: [] },
  seconds: 2,
};

async function run(words: readonly string[], more: Partial<CollectReport> = {}) {
  const requests: unknown[] = [];
  const collected = { ...report, ...more };
  const mover: MoverProcess = {
    run: async (request) => {
      requests.push(request);
      const points = [
        { pointId: "p1", name: "a", takenAt: "2026-11-20T12:00:00Z", keptBy: [] },
        { pointId: "p2", name: "a", takenAt: "2026-11-21T12:00:00Z", keptBy: ["newest", "daily"] },
      ];
      return (request.kind === "image-forget" ? { points, collected } : collected) as never;
    },
  };
  const ended = await runCli(words, { mover, environment: { HOLDFAST_PASSPHRASE: "secret" } });
  return { ...ended, requests };
}

const collecting = { dryRun: false, waitSeconds: 0, allowEmpty: false, dropDamagedLists: false };

test("gc passes what was asked for, and says what went and why", async () => {
  const plain = await run(["repository", "gc", "s3://backups/lab"]);
  expect(plain.code).toBe(0);
  const access = { url: "s3://backups/lab", passphrase: "secret" };
  const kind = "repository-collect";
  expect(plain.requests).toEqual([{ kind, ...access, ...collecting }]);
  expect(plain.stdout).toContain("no point needs it any more");
  expect(plain.stdout).toContain("Removed 12 objects, 3.00 MiB of 90 objects, 5.00 GiB");
  const words = ["--dry-run", "--wait-for", "15m", "--allow-share", "80%", "--allow-empty"];
  const all = await run(["repository", "gc", "s3://backups/lab", ...words], { isDryRun: true });
  expect(all.requests).toEqual([
    {
      kind,
      ...access,
      ...collecting,
      dryRun: true,
      waitSeconds: 900,
      allowShare: 0.8,
      allowEmpty: true,
    },
  ]);
  expect(all.stdout).toContain("Nothing was changed");
});

test("gc that is not at its end is exit code 3, and says whom it waits for and what is locked", async () => {
  const waitingFor = [
    { sessionId: "1", kind: "backup", holder: "job 7", startedAt: "then", silentForSeconds: 4 },
  ];
  const waiting = await run(["repository", "gc", "/srv"], { state: "waiting", waitingFor });
  expect(waiting.code).toBe(3);
  expect(waiting.stdout).toContain("WAITS    for backup of job 7");
  const locked = [{ key: "packs/aa/aa", until: "2027-01-01T00:00:00Z", legalHold: false }];
  const kept = await run(["repository", "gc", "/srv"], { state: "locked", locked });
  expect(kept.code).toBe(3);
  expect(kept.stdout).toContain("LOCKED   packs/aa/aa until 2027-01-01T00:00:00Z");
});

test("what makes no sense is refused before anything is asked of the repository", async () => {
  for (const words of [
    ["repository", "gc", "/srv", "--allow-share", "80"],
    ["repository", "gc", "/srv", "--allow-share", "0%"],
    ["repository", "gc", "/srv", "--wait-for", "soon"],
    ["image", "forget", "--repository", "/srv"],
    ["image", "forget", "p1", "--repository", "/srv", "--keep-last", "3"],
    ["image", "forget", "--repository", "/srv", "--keep-daily", "-1"],
    // A mistyped number or an empty variable must not be read as "keep nothing".
    ["image", "forget", "--repository", "/srv", "--keep-last", "0"],
  ]) {
    const refused = await run(words);
    expect([words, refused.code, refused.requests]).toEqual([words, 2, []]);
  }
});

test("forget takes points or rules, and shows what stays and why", async () => {
  const named = await run(["image", "forget", "p1, p3", "--repository", "/srv", "--last-too"]);
  expect(named.requests).toMatchObject([{ points: ["p1", "p3"], lastToo: true }]);
  const keep = ["--keep-last", "2", "--keep-monthly", "12", "--name", "a"];
  const ruled = await run(["image", "forget", "--repository", "/srv", ...keep]);
  expect(ruled.requests).toMatchObject([
    {
      kind: "image-forget",
      points: [],
      name: "a",
      lastToo: false,
      retention: { last: 2, hourly: 0, daily: 0, weekly: 0, monthly: 12, yearly: 0 },
    },
  ]);
  expect(ruled.stdout).toMatch(/p1 .*goes/);
  expect(ruled.stdout).toMatch(/p2 .*newest, daily/);
});
