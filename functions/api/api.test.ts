import { routes } from "@holdfast/shared/contracts/api";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type ApiHarness,
  type Call,
  canary,
  newPolicy,
  newProvider,
  newRepository,
  openApi,
  token,
} from "../../test/helpers/api-harness.ts";
import {
  aBackupJob,
  anInventoryItem,
  aPoint,
  aRestoreJob,
} from "../../test/helpers/catalog-samples.ts";
import type { ControlPlane } from "../../test/helpers/control-plane.ts";
import { handleRequest } from "./api.ts";

const at = "2026-11-20T10:00:00.000Z";

let api: ApiHarness;
let plane: ControlPlane;
const call = (method: string, path: string, request?: Call) => api.call(method, path, request);
const get = (path: string, request?: Call) => api.get(path, request);
const post = (path: string, body?: unknown, request?: Call) => api.post(path, body, request);
beforeEach(async () => {
  api = await openApi();
  plane = api.plane;
});
afterEach(() => api.close());

async function addWorld(): Promise<string> {
  await post("/v1/providers", newProvider);
  await post("/v1/repositories", newRepository);
  return plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), at);
}

async function commitPoint(vmId: string, pointId = "pt-1"): Promise<void> {
  const jobId = `job-${pointId}`;
  const fence = await plane.catalog.lockVm(vmId, jobId);
  await plane.catalog.commitPoint(aPoint({ vmId, jobId, pointId }), { fence, anchor: undefined });
  await plane.catalog.unlockVm(vmId, jobId);
}

describe("providers and repositories", () => {
  test("are added once, shown without secrets, and keep theirs in the parameter store", async () => {
    const added = await post("/v1/providers", newProvider);
    expect(added.status).toBe(201);
    expect(routes.addProvider.response.parse(added.json).siteId).toBe("local");
    expect((await post("/v1/providers", newProvider)).json.code).toBe("conflict");
    expect([...plane.parameters.secrets.values()]).toEqual([canary]);
    expect((await get("/v1/providers")).json.items).toEqual([added.json]);
    expect((await get("/v1/providers/kvm-1")).json).toEqual(added.json);

    const repository = await post("/v1/repositories", newRepository);
    expect(repository.json).toMatchObject({ repositoryId: "main", url: "s3://backups/main" });
    expect((await get("/v1/repositories")).json.items).toEqual([repository.json]);
    const withLogin = { ...newRepository, url: "https://user:pass@store/x" };
    expect((await post("/v1/repositories", withLogin)).status).toBe(400);
    for (const url of ["s3://x/../y", "relative/folder", "s3://UPPER/x", "ftp://store/x"]) {
      const refused = await post("/v1/repositories", { ...newRepository, repositoryId: "b", url });
      expect([url, refused.status]).toEqual([url, 400]);
    }
    expect(plane.parameters.secrets.size).toBe(2);
  });

  test("a provider whose VMs have points goes only by force; its secret goes too", async () => {
    const vmId = await addWorld();
    await commitPoint(vmId);
    expect((await call("DELETE", "/v1/providers/kvm-1")).status).toBe(409);
    await plane.catalog.lockVm(vmId, "job-pt-2");
    const { lock } = await plane.catalog.getVm(vmId);
    await plane.catalog.commitPoint(aPoint({ vmId, jobId: "job-pt-2", pointId: "pt-2" }), {
      fence: lock?.fence ?? 0,
      anchor: { strategy: "checkpoint", state: {} },
    });
    await plane.catalog.unlockVm(vmId, "job-pt-2");
    const refused = await call("DELETE", "/v1/providers/kvm-1");
    expect(refused.json.detail).toContain("1 keep a snapshot or checkpoint on their host");
    const held = await plane.catalog.lockVm(vmId, "job-x");
    expect(held).toBeGreaterThan(0);
    await plane.catalog.createJob(aBackupJob({ jobId: "job-x", vmId }));
    const busy = await call("DELETE", "/v1/providers/kvm-1", { query: "force=true" });
    expect(busy.json).toMatchObject({ code: "busy", jobId: "job-x" });
    await plane.catalog.unlockVm(vmId, "job-x");
    expect((await call("DELETE", "/v1/providers/kvm-1", { query: "force=true" })).status).toBe(204);
    expect(plane.parameters.secrets.size).toBe(1);
    expect((await get("/v1/points", { query: `vm=${vmId}` })).json.items).toHaveLength(2);
  });

  test("a provider is not removed under a restore or a sync, which would leave what they made behind", async () => {
    await addWorld();
    await plane.catalog.createJob(aRestoreJob({ jobId: "r", state: "running" }));
    await plane.workflows.start(
      { kind: "restore", jobId: "r" },
      { jobId: "r", siteQueueUrl: "http://queue" },
    );
    const busy = await call("DELETE", "/v1/providers/kvm-1", { query: "force=true" });
    expect(busy).toMatchObject({ status: 409, json: { code: "busy" } });
    expect(busy.json.detail).toContain("job r, a restore");
    await plane.catalog.updateJob("r", { state: "failed" });
    const sync = await post("/v1/providers/kvm-1/sync");
    expect((await call("DELETE", "/v1/providers/kvm-1")).json.code).toBe("busy");
    await plane.catalog.updateJob(sync.json.jobId, { state: "succeeded" });
    expect((await call("DELETE", "/v1/providers/kvm-1")).status).toBe(204);
  });

  test("test and sync start inspect jobs; the same key again is the same job", async () => {
    await addWorld();
    const request = { headers: { authorization: `Bearer ${token}`, "idempotency-key": "k1" } };
    const first = await post("/v1/providers/kvm-1/sync", undefined, request);
    expect(first.status).toBe(202);
    expect(first.json).toMatchObject({ kind: "inspect", mode: "sync", state: "queued" });
    expect(first.headers["location"]).toBe(`/v1/jobs/${first.json.jobId}`);
    const again = await post("/v1/providers/kvm-1/sync", {}, request);
    expect(again.json.jobId).toBe(first.json.jobId);
    expect((await post("/v1/providers/kvm-1/test", undefined, request)).status).toBe(409);
    expect([...plane.workflows.started.values()]).toEqual([
      { jobId: first.json.jobId, siteQueueUrl: "http://queue/holdfast-local" },
    ]);
    const bad = { headers: { authorization: `Bearer ${token}`, "idempotency-key": "a b" } };
    expect((await post("/v1/providers/kvm-1/test", undefined, bad)).status).toBe(400);
  });
});

describe("VMs and points", () => {
  test("a VM is shown by id and by name, with its points and policies", async () => {
    const vmId = await addWorld();
    await commitPoint(vmId, "pt-1");
    await post("/v1/policies", newPolicy);
    for (const id of [vmId, "web"]) {
      const { json } = await get(`/v1/vms/${id}`);
      expect(routes.getVm.response.parse(json)).toMatchObject({
        name: "web",
        points: 1,
        policyIds: ["nightly"],
        lastPoint: { pointId: "pt-1" },
      });
    }
    expect((await get("/v1/vms", { query: "provider=kvm-1" })).json.items).toHaveLength(1);
    expect((await get("/v1/vms", { query: "provider=none" })).status).toBe(404);
    expect((await get("/v1/points", { query: "vm=web" })).json.items).toHaveLength(1);
    expect((await get("/v1/points/pt-1")).json.pointId).toBe("pt-1");
    expect((await get("/v1/status")).json).toMatchObject({ vms: 1, providers: 1, policies: 1 });
  });
});

describe("policies", () => {
  test("are added, changed and removed with their schedules", async () => {
    await addWorld();
    const added = await post("/v1/policies", { ...newPolicy, schedule: "rate(1 day)" });
    expect(added.status).toBe(201);
    expect(plane.schedules.set.get("nightly")).toEqual({
      policyId: "nightly",
      expression: "rate(1 day)",
      timeZone: "UTC",
    });
    expect((await post("/v1/policies", newPolicy)).status).toBe(409);
    expect((await get("/v1/policies/nightly/matches")).json.items).toHaveLength(1);
    const { policyId: _id, ...change } = newPolicy;
    const changed = await call("PUT", "/v1/policies/nightly", { body: change });
    expect(changed.json).toMatchObject({ policyId: "nightly", createdAt: added.json.createdAt });
    expect(plane.schedules.set.size).toBe(0);
    expect((await call("DELETE", "/v1/policies/nightly")).status).toBe(204);
    expect((await get("/v1/policies/nightly")).status).toBe(404);
    expect((await call("PUT", "/v1/policies/nightly", { body: change })).status).toBe(404);
  });

  test("a refused schedule leaves things as they were", async () => {
    await addWorld();
    await post("/v1/policies", newPolicy);
    plane.schedules.failing = true;
    const other = { ...newPolicy, policyId: "other", schedule: "cron(61 * * * ? *)" };
    expect((await post("/v1/policies", other)).status).toBe(400);
    expect((await get("/v1/policies/other")).status).toBe(404);
    const { policyId: _id, ...change } = { ...newPolicy, schedule: "rate(2 days)" };
    expect((await call("PUT", "/v1/policies/nightly", { body: change })).status).toBe(400);
    expect((await get("/v1/policies/nightly")).json.schedule).toBeUndefined();
  });

  test.each([
    { selection: {} },
    { schedule: "* * * * *" },
    { timeZone: "Mars/Olympus" },
    { retention: { last: -1 } },
  ])("%j is refused", async (change) => {
    await addWorld();
    expect((await post("/v1/policies", { ...newPolicy, ...change })).status).toBe(400);
  });

  test("a run starts what can be started and says why not the others", async () => {
    await addWorld();
    await plane.catalog.upsertVm("kvm-1", anInventoryItem("web2"), at);
    await plane.catalog.upsertVm("kvm-1", anInventoryItem("db"), at);
    await post("/v1/policies", newPolicy);
    const busy = await post("/v1/backups", { vm: "web2" });
    const headers = { authorization: `Bearer ${token}`, "Idempotency-Key": "run-1" };
    const run = await post("/v1/policies/nightly/run", undefined, { headers });
    expect(run.status).toBe(202);
    expect(run.json.jobs).toMatchObject([{ vmName: "web", policyId: "nightly" }]);
    expect(run.json.skipped).toMatchObject([{ vmName: "web2", code: "busy" }]);
    expect(run.json.skipped[0].reason).toContain(busy.json.jobId);
    const again = await post("/v1/policies/nightly/run", undefined, { headers });
    expect(again.json.jobs[0].jobId).toBe(run.json.jobs[0].jobId);
  });
});

describe("backups", () => {
  test("a backup holds its VM: a second one is busy and names the first", async () => {
    const vmId = await addWorld();
    const first = await post("/v1/backups", { vm: "web", full: true });
    expect(first.status).toBe(202);
    expect(first.json).toMatchObject({ kind: "backup", vmId, full: true, repositoryId: "main" });
    expect(plane.workflows.started.has(first.json.jobId)).toBe(true);
    const second = await post("/v1/backups", { vm: "web" });
    expect(second.status).toBe(409);
    expect(second.json).toMatchObject({ code: "busy", id: "HF-BUSY", jobId: first.json.jobId });
    expect(plane.workflows.started.size).toBe(1);
  });

  test("racing requests start one backup", async () => {
    await addWorld();
    const all = await Promise.all(
      Array.from({ length: 6 }, () => post("/v1/backups", { vm: "web" })),
    );
    expect(all.map(({ status }) => status).toSorted()).toEqual([202, 409, 409, 409, 409, 409]);
    expect(plane.workflows.started.size).toBe(1);
  });

  test("options: given over policy over default", async () => {
    await addWorld();
    await post("/v1/policies", {
      ...newPolicy,
      options: { quiesce: "require", excludeDisks: ["vdb"] },
    });
    const { json } = await post("/v1/backups", { vm: "web", options: { excludeDisks: ["vdc"] } });
    expect(json).toMatchObject({
      policyId: "nightly",
      options: { quiesce: "require", excludeDisks: ["vdc"], strategy: "auto", sampleShare: 0.01 },
    });
  });

  test("the repository is given, the policy's or the only one; else it must be named", async () => {
    const vmId = await addWorld();
    await post("/v1/repositories", { ...newRepository, repositoryId: "second" });
    const unnamed = await post("/v1/backups", { vm: "web" });
    expect(unnamed.status).toBe(400);
    expect(unnamed.json.detail).toContain("main, second");
    expect((await post("/v1/backups", { vm: vmId, repositoryId: "none" })).status).toBe(404);
    const named = await post("/v1/backups", { vm: vmId, repositoryId: "second" });
    expect(named.json.repositoryId).toBe("second");
  });

  test("a VM that is gone is not backed up", async () => {
    await addWorld();
    await plane.catalog.markGone("kvm-1", "2027-01-01T00:00:00.000Z");
    expect((await post("/v1/backups", { vm: "web" })).json.code).toBe("vm.gone");
  });

  test("a start that fails ends the job as failed and gives the VM back", async () => {
    const vmId = await addWorld();
    plane.workflows.failing = true;
    const failed = await post("/v1/backups", { vm: "web" });
    expect(failed.status).toBe(503);
    expect((await plane.catalog.getVm(vmId)).lock).toBeUndefined();
    const [job] = (await get("/v1/jobs", { query: "vm=web&limit=1" })).json.items;
    expect(job).toMatchObject({ state: "failed", failure: { code: "aws.failed" } });
    plane.workflows.failing = false;
    expect((await post("/v1/backups", { vm: "web" })).status).toBe(202);
  });

  test("a lock left by an ended job, or by one that was cleaned up after, is taken over", async () => {
    const vmId = await addWorld();
    for (const state of ["failed", "running"] as const) {
      const jobId = `left-${state}`;
      await plane.catalog.createJob(aBackupJob({ jobId, vmId, state }));
      await plane.catalog.lockVm(vmId, jobId);
      if (state === "running") {
        plane.workflows.ended.add(jobId);
        // Its workflow has ended and it has not: it is cleaned up after first, once.
        for (const _ of ["first", "again"]) {
          expect((await post("/v1/backups", { vm: "web" })).status).toBe(409);
          expect([...plane.workflows.recovering.keys()]).toEqual([jobId]);
        }
        plane.workflows.recovered.add(jobId);
      }
      const next = await post("/v1/backups", { vm: "web" });
      expect(next.status).toBe(202);
      expect((await plane.catalog.getJob(jobId)).state).toBe("failed");
      await plane.catalog.unlockVm(vmId, next.json.jobId);
    }
  });

  test("a holder that was left without workflow gets it when the VM is asked for", async () => {
    const vmId = await addWorld();
    await plane.catalog.createJob(aBackupJob({ jobId: "left", vmId }));
    await plane.catalog.lockVm(vmId, "left");
    expect((await post("/v1/backups", { vm: "web" })).json).toMatchObject({ jobId: "left" });
    expect(plane.workflows.started.has("left")).toBe(true);
  });

  test("the same key twice is one backup, for other work it is a conflict", async () => {
    await addWorld();
    const headers = { authorization: `Bearer ${token}`, "idempotency-key": "once" };
    const [a, b] = await Promise.all([
      post("/v1/backups", { vm: "web" }, { headers }),
      post("/v1/backups", { vm: "web" }, { headers }),
    ]);
    expect(a.status).toBe(202);
    expect(b.json.jobId).toBe(a.json.jobId);
    expect((await post("/v1/backups", { vm: "web", full: true }, { headers })).status).toBe(409);
  });
});

describe("jobs", () => {
  test("are listed, shown with progress and log, and cancelled", async () => {
    await addWorld();
    const { jobId } = (await post("/v1/backups", { vm: "web" })).json;
    await plane.catalog.appendLog(jobId, { time: at, level: "info", message: "hello" });
    const shown = routes.getJob.response.parse((await get(`/v1/jobs/${jobId}`)).json);
    expect(shown).toMatchObject({ job: { jobId }, progress: [], log: [{ message: "hello" }] });
    expect((await get("/v1/jobs", { query: "limit=5" })).json.items).toHaveLength(1);
    for (const limit of ["0", "501", "x", "1.5"]) {
      expect((await get("/v1/jobs", { query: `limit=${limit}` })).status).toBe(400);
    }
    expect((await get("/v1/jobs", { query: "limit=1&limit=2" })).status).toBe(400);
    const cancelled = await post(`/v1/jobs/${jobId}/cancel`);
    expect(cancelled).toMatchObject({ status: 202, json: { state: "cancelling" } });
    await plane.catalog.updateJob(jobId, { state: "cancelled" });
    expect((await post(`/v1/jobs/${jobId}/cancel`)).status).toBe(409);
  });
});

describe("restores", () => {
  test("a restore of a point starts, to its own provider or another", async () => {
    const vmId = await addWorld();
    await commitPoint(vmId, "pt-r");
    await post("/v1/providers", { ...newProvider, providerId: "kvm-2", siteId: "far" });
    const own = await post("/v1/restores", { pointId: "pt-r" });
    expect(own.json).toMatchObject({
      kind: "restore",
      providerId: "kvm-1",
      restore: { mode: "new", keepIdentity: false, excludedDisks: "empty" },
    });
    const other = await post("/v1/restores", { pointId: "pt-r", providerId: "kvm-2", name: "x" });
    expect(other.json).toMatchObject({ providerId: "kvm-2", siteId: "far" });
    expect((await post("/v1/restores", { pointId: "none" })).status).toBe(404);
    expect((await post("/v1/restores", { pointId: "pt-r", providerId: "no" })).status).toBe(404);
  });
});

test("a defect answers 500 without its message, and is logged by name and place", async () => {
  const response = await handleRequest(
    {
      rawPath: "/v1/status",
      headers: { authorization: `Bearer ${token}` },
      requestContext: { http: { method: "GET" } },
    },
    {
      ...api.options,
      operations: {
        ...api.options.operations,
        getStatus: async () => {
          throw new TypeError(canary);
        },
      },
    },
  );
  expect(response.statusCode).toBe(500);
  expect(response.body).not.toContain(canary);
  expect(plane.logLines.join()).toContain("TypeError");
});

test("where a gateway authorises, only what it let through passes", async () => {
  const options = { ...api.options, tokenSha256: undefined };
  const event = { rawPath: "/v1/status", requestContext: { http: { method: "GET" } } };
  expect((await handleRequest(event, options)).statusCode).toBe(401);
  const passed = { ...event, requestContext: { ...event.requestContext, authorizer: { jwt: {} } } };
  expect((await handleRequest(passed, options)).statusCode).toBe(200);
});

test("the OpenAPI document describes every route and has no secret", async () => {
  const { status, json } = await get("/v1/openapi.json");
  expect(status).toBe(200);
  expect(json.openapi).toBe("3.1.0");
  const described = Object.values<Record<string, { readonly operationId: string }>>(json.paths)
    .flatMap((methods) => Object.values(methods))
    .map(({ operationId }) => operationId);
  expect(described.toSorted()).toEqual(Object.keys(routes).toSorted());
  expect(JSON.stringify(json.paths["/v1/backups"])).toContain("sampleShare");
});
