import type { JobDetail } from "@holdfast/shared/contracts/api";
import { JobEvent } from "@holdfast/shared/contracts/events";
import { failureCodes, failureKind } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import { type Answer, runCli, startScriptedApi } from "./testing.ts";

const options = {
  strategy: "auto",
  quiesce: "try",
  excludeDisks: [],
  preCommands: [],
  postCommands: [],
  incremental: true,
  sampleShare: 0.01,
  scratchBytesMin: 0,
};

function detail(
  state: string,
  more: { job?: object; bytesDone?: number; log?: JobDetail["log"]; jobId?: string } = {},
): object {
  const bytesDone = more.bytesDone ?? 1000;
  return {
    job: {
      jobId: more.jobId ?? "job-1",
      kind: "backup",
      state,
      providerId: "kvm1",
      siteId: "local",
      createdAt: "2026-11-20T12:00:00Z",
      startedAt: "2026-11-20T12:00:00Z",
      warnings: [],
      vmId: "vm-1",
      vmName: "web1",
      repositoryId: "default",
      full: false,
      options,
      ...more.job,
    },
    progress: [
      {
        diskKey: "vda",
        sizeBytes: 2000,
        bytesDone,
        bytesTotal: 1000,
        bytesRead: bytesDone,
        bytesNew: 100,
        bytesStored: 50,
        mode: "incremental",
        reason: "",
        startedAt: "2026-11-20T12:00:00Z",
        updatedAt: "2026-11-20T12:00:00Z",
        finished: bytesDone === 1000,
      },
    ],
    log: more.log ?? [],
  };
}

const running = (bytesDone: number): object =>
  detail("running", { bytesDone, job: { stage: "TransferDisks" } });
const succeeded = detail("succeeded", {
  job: { endedAt: "2026-11-20T12:00:10Z", pointId: "point-1" },
});

/** Answers each look at the job with the next of these, the last one for ever. */
function script(details: readonly object[]): () => Answer {
  let next = 0;
  return () => {
    const body = details[Math.min(next, details.length - 1)];
    next += 1;
    return { status: 200, body };
  };
}

test("a job is followed to its end; the result is one line on stdout", async () => {
  await using api = await startScriptedApi(
    script([detail("queued", { bytesDone: 0 }), running(500), succeeded]),
  );
  const run = await runCli(["job", "watch", "job-1"], { endpoint: api.endpoint });
  expect(run).toMatchObject({ code: 0, stderr: "" });
  expect(run.stdout).toBe(
    "web1: backed up: recovery point point-1, scanned 1.95 KiB, read 1000 B, new 100 B, stored 50 B, 10 s (100 B/s), dedup 40.0x\n",
  );
});

test("under --json every line is an event of the published schema, job.finished last", async () => {
  const warned = [
    { time: "2026-11-20T12:00:00Z", level: "warn" as const, message: "agent silent" },
  ];
  const details = [
    running(100),
    running(500),
    detail("running", { bytesDone: 1000, job: { stage: "Commit" }, log: warned }),
    succeeded,
  ];
  await using api = await startScriptedApi(script(details));
  const { code, stdout, stderr } = await runCli(["job", "watch", "job-1", "--json"], {
    endpoint: api.endpoint,
  });
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JobEvent.parse(JSON.parse(line)));
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(events.map(({ type }) => type)).toEqual([
    "job.started",
    "stage.started",
    "stage.progress",
    "stage.finished",
    "stage.started",
    "warning",
    "stage.progress",
    "stage.finished",
    "job.finished",
  ]);
  expect(events.at(-1)).toMatchObject({
    job: "job-1",
    state: "succeeded",
    result: { pointId: "point-1" },
  });
  expect(events[2]).toMatchObject({ vm: "web1", disk: "vda", bytesDone: 100, bytesTotal: 1000 });
});

test.each(failureCodes)(
  "a job that failed with %s ends in its exit code, with message and advice",
  async (code) => {
    const failed = detail("failed", {
      job: { failure: { code, message: "what happened", causes: ["why it did"] } },
    });
    await using api = await startScriptedApi(script([failed]));
    const run = await runCli(["job", "watch", "job-1"], { endpoint: api.endpoint });
    expect(run.code).toBe(failureKind(code).exitCode);
    expect(run.stderr).toContain("web1: what happened\n  Cause: why it did\n");
    expect(run.stderr).toContain(failureKind(code).advice);
    expect(run.stderr).toContain("holdfast job show job-1");
  },
);

test.each([
  ["warnings", 3],
  ["cancelled", 130],
  ["failed", 1],
])("a job that ends as %s is exit code %d", async (state, code) => {
  await using api = await startScriptedApi(
    script([detail(state, { job: { warnings: ["quiesce fell back"] } })]),
  );
  expect((await runCli(["job", "watch", "job-1"], { endpoint: api.endpoint })).code).toBe(code);
});

test("Ctrl-C detaches: the job is not cancelled, the way back is said, exit code 9", async () => {
  let interrupt = (): void => undefined;
  let looks = 0;
  await using api = await startScriptedApi(() => {
    looks += 1;
    if (looks === 3) interrupt();
    return { status: 200, body: running(looks) };
  });
  const run = await runCli(["job", "watch", "job-1"], {
    endpoint: api.endpoint,
    onInterrupt: (handler) => {
      interrupt = handler;
      return { [Symbol.dispose]: () => undefined };
    },
  });
  expect(run.code).toBe(9);
  expect(run.stderr).toContain("the job goes on");
  expect(run.stderr).toContain("holdfast job watch job-1");
  expect(api.exchanges.every(({ method }) => method === "GET")).toBe(true);
});

test("--timeout ends the watching with exit code 9", async () => {
  await using api = await startScriptedApi(() => ({ status: 200, body: running(1) }));
  const run = await runCli(["job", "watch", "job-1", "--timeout", "5"], { endpoint: api.endpoint });
  expect(run.code).toBe(9);
  expect(api.exchanges.length).toBeLessThan(20);
});

test("a control plane that restarts is waited for", async () => {
  let looks = 0;
  await using api = await startScriptedApi(() => {
    looks += 1;
    if (looks > 1 && looks < 12) return "hang-up";
    return { status: 200, body: looks === 1 ? running(1) : succeeded };
  });
  expect((await runCli(["job", "watch", "job-1"], { endpoint: api.endpoint })).code).toBe(0);
});

test("a control plane that stays away ends the watching as temporary", async () => {
  let looks = 0;
  await using api = await startScriptedApi(() => {
    looks += 1;
    return looks > 1 ? "hang-up" : { status: 200, body: running(1) };
  });
  expect((await runCli(["job", "watch", "job-1"], { endpoint: api.endpoint })).code).toBe(7);
});

test("backup --no-wait prints the job's id alone to a pipe, one document under --json", async () => {
  const { job } = detail("queued") as { job: object };
  await using api = await startScriptedApi(() => ({ status: 202, body: job }));
  const plain = await runCli(["backup", "web1", "--full", "--no-wait"], { endpoint: api.endpoint });
  expect(plain).toMatchObject({ code: 0, stdout: "job-1\n" });
  const json = await runCli(["backup", "web1", "--no-wait", "--json"], { endpoint: api.endpoint });
  expect(JSON.parse(json.stdout)).toMatchObject({ job: { jobId: "job-1" } });
  expect(api.exchanges[0]).toMatchObject({
    method: "POST",
    path: "/v1/backups",
    body: { vm: "web1", full: true },
  });
  expect(api.exchanges[0]?.headers["idempotency-key"]).toMatch(/^[0-9a-f]{32}$/);
});

test("of a policy's jobs some failing is exit code 3, and what was skipped is said", async () => {
  const { job: one } = detail("queued", { jobId: "job-1" }) as { job: object };
  const { job: two } = detail("queued", { jobId: "job-2" }) as { job: object };
  const skipped = [{ vmId: "vm-3", vmName: "db1", code: "busy", reason: "job-9 runs" }];
  await using api = await startScriptedApi(({ path }) => {
    if (path.endsWith("/run")) return { status: 202, body: { jobs: [one, two], skipped } };
    if (path.endsWith("job-1")) return { status: 200, body: succeeded };
    const failure = { code: "vm.gone", message: "gone", causes: [] };
    return { status: 200, body: detail("failed", { jobId: "job-2", job: { failure } }) };
  });
  const run = await runCli(["policy", "run", "nightly"], { endpoint: api.endpoint });
  expect(run.code).toBe(3);
  expect(run.stderr).toContain("Skipped db1: job-9 runs");
  expect(run.stderr).toContain("HF-VM-GONE");
});

test("job cancel is done when the job is cancelled", async () => {
  const { job } = detail("cancelling") as { job: object };
  await using api = await startScriptedApi(({ method }) =>
    method === "POST" ? { status: 202, body: job } : { status: 200, body: detail("cancelled") },
  );
  expect((await runCli(["job", "cancel", "job-1"], { endpoint: api.endpoint })).code).toBe(0);
});
