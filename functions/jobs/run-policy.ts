import type { Job, Policy, Vm } from "@holdfast/shared/contracts/catalog-items";
import { isFailure } from "@holdfast/shared/domain/failure";
import { selectsVm } from "@holdfast/shared/domain/policy-selection";
import { resolveBackup } from "./resolve-backup.ts";
import { type StartServices, startJob } from "./start-jobs.ts";

export type PolicyRunResult = {
  readonly jobs: readonly Job[];
  readonly skipped: readonly SkippedVm[];
};
export type SkippedVm = {
  readonly vmId: string;
  readonly vmName: string;
  readonly code: string;
  readonly reason: string;
};

/** Some calls of a second each: thousands of VMs within the dispatcher's five minutes, and no flood for the table. */
const startsAtOnceMax = 8;

/**
 * Starts one backup for each VM that the policy selects now. `jobIdOf` makes a repeated run find its own jobs;
 * VMs that are held, gone or without provider are skipped, and one VM's trouble doesn't stop the others.
 */
export async function runPolicy(
  policy: Policy,
  services: StartServices,
  jobIdOf: (vmId: string) => string | undefined,
): Promise<PolicyRunResult> {
  const { policyId, repositoryId } = policy;
  const vms = (await services.catalog.listVms()).filter((vm) => selectsVm(policy.selection, vm));
  const start = async (vm: Vm): Promise<Job | SkippedVm> => {
    try {
      const request = { vm, full: false, policyId, repositoryId };
      const backup = await resolveBackup(request, services.catalog);
      return await startJob(backup, services, jobIdOf(vm.vmId));
    } catch (error) {
      if (!isFailure(error)) throw error;
      const { code, message: reason } = error;
      return { vmId: vm.vmId, vmName: vm.description.name, code, reason };
    }
  };
  const outcomes: (Job | SkippedVm)[] = [];
  for (let at = 0; at < vms.length; at += startsAtOnceMax) {
    outcomes.push(...(await Promise.all(vms.slice(at, at + startsAtOnceMax).map(start))));
  }
  return {
    jobs: outcomes.filter((outcome) => "jobId" in outcome),
    skipped: outcomes.filter((outcome) => "reason" in outcome),
  };
}
