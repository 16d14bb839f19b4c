import { jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { afterEach, beforeEach, expect, test } from "vitest";
import { resolveBackup } from "../../functions/jobs/resolve-backup.ts";
import { hasEnded, startJob } from "../../functions/jobs/start-jobs.ts";
import { beginBackup } from "../../functions/stages/begin-backup/begin-backup.ts";
import { commit } from "../../functions/stages/commit/commit.ts";
import { finishJob } from "../../functions/stages/finish-job/finish-job.ts";
import { applyRetention } from "../../functions/stages/retention/retention.ts";
import {
  anInventoryItem,
  aPoint,
  aPolicy,
  aProvider,
  aRepository,
} from "../helpers/catalog-samples.ts";
import { type ControlPlane, openControlPlane } from "../helpers/control-plane.ts";

/**
 * Fault sweep over the control plane: outside call 1 fails, then call 2, and so on until the work runs through
 * untouched, each before and after taking effect. What failed is repeated, as Step Functions or a client would.
 */
let plane: ControlPlane;
let vmId: string;
beforeEach(async () => {
  plane = await openControlPlane();
  await plane.catalog.putProvider(aProvider(), { create: true });
  await plane.catalog.putRepository(aRepository());
  const { retention } = aPolicy();
  await plane.catalog.putPolicy(aPolicy({ retention: { ...retention, last: 2 } }));
  vmId = await plane.catalog.upsertVm("kvm-1", anInventoryItem("web"), "2026-11-20");
});
afterEach(() => plane[Symbol.asyncDispose]());

type Fault = { readonly call: number; readonly when: "before" | "after" };

/** The same services, of which one call fails; `hit` tells whether it came to that. */
function withFault(fault: Fault | undefined) {
  const state = { calls: 0, hit: false };
  const faulty = <Service extends object>(service: Service): Service =>
    new Proxy(service, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return async (...args: unknown[]) => {
          state.calls += 1;
          const isHit = state.calls === fault?.call;
          if (isHit) state.hit = true;
          if (isHit && fault.when === "before") throw lost();
          const answer: unknown = await Reflect.apply(member, target, args);
          if (isHit) throw lost();
          return answer;
        };
      },
    });
  return {
    state,
    services: {
      ...plane,
      catalog: faulty(plane.catalog),
      workflows: faulty(plane.workflows),
      eventBus: faulty(plane.eventBus),
    },
  };
}

const lost = () => new Failure("aws.failed", { message: "planted" });

/** Runs the work under each fault until one is beyond its last call; `check` looks at what is left each time. */
async function sweep(
  work: (services: ReturnType<typeof withFault>["services"], round: number) => Promise<void>,
  check: (round: number) => Promise<void>,
): Promise<number> {
  let round = 0;
  for (let call = 1; ; call += 1) {
    for (const when of ["before", "after"] as const) {
      round += 1;
      const { services, state } = withFault({ call, when });
      try {
        await work(services, round);
      } catch (error) {
        expect(isFailure(error)).toBe(true);
      }
      if (!state.hit) return call;
      await check(round);
    }
  }
}

async function start(services: ReturnType<typeof withFault>["services"]) {
  const vm = await services.catalog.getVm(vmId);
  const backup = await resolveBackup({ vm, full: false, policyId: "nightly" }, services.catalog);
  return startJob(backup, services);
}

test("however the start of a backup fails, the VM is held by a running job or can be had", async () => {
  const calls = await sweep(
    async (services) => {
      await start(services);
    },
    async () => {
      const again = await start(withFault(undefined).services).catch((error: unknown) => error);
      if (isFailure(again)) {
        expect(again.code).toBe("busy");
        expect(plane.workflows.started.has(String(again.details["jobId"]))).toBe(true);
      }
      // The workflow runs: to its end here.
      const { lock } = await plane.catalog.getVm(vmId);
      expect(lock).toBeDefined();
      await finishJob({ jobId: lock?.jobId ?? "" }, plane);
      expect((await plane.catalog.getVm(vmId)).lock).toBeUndefined();
    },
  );
  expect(calls).toBeGreaterThan(6);
  // Whatever was left queued without VM or workflow ends when someone looks at it.
  for (const { jobId } of await plane.catalog.listJobs({ limit: 500 })) {
    if (await hasEnded(jobId, plane)) continue;
    expect(plane.workflows.started.has(jobId)).toBe(true);
    await finishJob({ jobId }, plane);
    expect(jobStatesEnded).toContain((await plane.catalog.getJob(jobId)).state);
  }
});

test("a whole backup goes through whichever call of its stages fails, and commits one point", async () => {
  const stages = async (
    jobId: string,
    services: ReturnType<typeof withFault>["services"],
    attempts: number,
  ) => {
    const stage = async (work: () => Promise<unknown>) => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await work();
          return;
        } catch (error) {
          if (attempt >= attempts || !isFailure(error) || !error.kind.retryable) throw error;
        }
      }
    };
    await stage(() => beginBackup({ jobId }, services));
    const point = aPoint({
      vmId,
      jobId,
      pointId: `pt-${jobId}`,
      takenAt: new Date(plane.clock.now()).toISOString(),
    });
    for (const [taskName, result] of [
      ["snapshot", { session: { disks: [{ key: "vda" }] } }],
      ["write-recovery-point", { rootKey: point.rootKey, point }],
    ] as const) {
      const record = await plane.catalog.claimTask(jobId, taskName, "mover");
      await plane.catalog.finishTask(jobId, record, result);
    }
    await stage(() => commit({ jobId }, services.catalog));
    await stage(() => applyRetention({ jobId }, services.catalog));
    await stage(() => finishJob({ jobId }, services));
  };
  const calls = await sweep(
    async (services) => {
      const { jobId } = await start(withFault(undefined).services);
      await stages(jobId, services, 2);
      const job = await plane.catalog.getJob(jobId);
      expect(job).toMatchObject({ state: "succeeded", pointId: `pt-${jobId}` });
      const { head, lock } = await plane.catalog.getVm(vmId);
      expect(head?.pointId).toBe(`pt-${jobId}`);
      expect(lock).toBeUndefined();
    },
    async (round) => {
      // One more point each round, of which the policy keeps two.
      expect(await plane.catalog.listPoints(vmId)).toHaveLength(Math.min(round, 2));
    },
  );
  expect(calls).toBeGreaterThan(15);
}, 180_000);
