import type { Policy } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import { selectsVm } from "@holdfast/shared/domain/policy-selection";
import { runPolicy } from "../jobs/run-policy.ts";
import { derivedJobId } from "../jobs/start-jobs.ts";
import type { ApiServices, Operations } from "./operations.ts";
import { vmView } from "./views.ts";

/** Policies and their schedules. A schedule never outlives its policy: it is set last and removed first. */
export function policyOperations(
  services: ApiServices,
): Operations<
  | "addPolicy"
  | "listPolicies"
  | "getPolicy"
  | "changePolicy"
  | "removePolicy"
  | "listPolicyMatches"
  | "runPolicy"
> {
  const { catalog, clock, schedules } = services;

  return {
    async addPolicy({ body: { schedule, ...wanted } }) {
      const policy: Policy = {
        ...wanted,
        ...(schedule === undefined ? {} : { schedule }),
        createdAt: new Date(clock.now()).toISOString(),
      };
      await checkPolicy(policy, services);
      await catalog.putPolicy(policy, { create: true });
      try {
        await setSchedule(policy, services);
      } catch (error) {
        await catalog.removePolicy(policy.policyId);
        throw error;
      }
      return policy;
    },

    listPolicies: async () => ({ items: [...(await catalog.listPolicies())] }),
    getPolicy: ({ id }) => catalog.getPolicy(id),

    async changePolicy({ id, body: { schedule, ...wanted } }) {
      const before = await catalog.getPolicy(id);
      const policy: Policy = {
        ...wanted,
        ...(schedule === undefined ? {} : { schedule }),
        policyId: id,
        createdAt: before.createdAt,
      };
      await checkPolicy(policy, services);
      await catalog.putPolicy(policy);
      try {
        await setSchedule(policy, services, before);
      } catch (error) {
        await catalog.putPolicy(before);
        throw error;
      }
      return policy;
    },

    async removePolicy({ id }) {
      const { schedule } = await catalog.getPolicy(id);
      if (schedule !== undefined) await schedules().remove(id);
      await catalog.removePolicy(id);
      return undefined;
    },

    async listPolicyMatches({ id }) {
      const { selection } = await catalog.getPolicy(id);
      const vms = await catalog.listVms();
      return { items: vms.filter((vm) => selectsVm(selection, vm)).map(vmView) };
    },

    async runPolicy({ id, idempotencyKey }) {
      const policy = await catalog.getPolicy(id);
      const { jobs, skipped } = await runPolicy(policy, services, (vmId) =>
        idempotencyKey === undefined
          ? undefined
          : derivedJobId(["policy", id, vmId, idempotencyKey]),
      );
      return { jobs: [...jobs], skipped: [...skipped] };
    },
  };
}

async function checkPolicy(policy: Policy, { catalog }: ApiServices): Promise<void> {
  await catalog.getRepository(policy.repositoryId);
  if (Object.values(policy.selection).every((field) => field === undefined)) {
    throw new Failure("input.invalid", {
      message:
        "the selection is empty and would protect nothing; give providerIds, namePattern, tags or vmIds",
    });
  }
  if (policy.schedule !== undefined && !/^(cron|rate)\([^()]{1,240}\)$/.test(policy.schedule)) {
    throw new Failure("input.invalid", {
      message: `the schedule ${JSON.stringify(policy.schedule)} is neither cron(…) nor rate(…)`,
    });
  }
  try {
    new Intl.DateTimeFormat("en", { timeZone: policy.timeZone });
  } catch (error) {
    throw new Failure("input.invalid", {
      message: `there is no time zone ${JSON.stringify(policy.timeZone)}`,
      cause: error,
    });
  }
}

async function setSchedule(policy: Policy, services: ApiServices, before?: Policy): Promise<void> {
  const { policyId, schedule, timeZone } = policy;
  if (schedule !== undefined) {
    await services.schedules().put({ policyId, expression: schedule, timeZone });
  } else if (before?.schedule !== undefined) {
    await services.schedules().remove(policyId);
  }
}
