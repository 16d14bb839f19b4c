import type { Job, Policy } from "@holdfast/shared/contracts/catalog-items";
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

/**
 * Starts one backup for each VM that the policy selects now. `jobIdOf` makes a repeated run find its own jobs;
 * VMs that are held, gone or without provider are skipped, and one VM's trouble doesn't stop the others.
 */
export async function runPolicy(
  policy: Policy,
  services: StartServices,
  jobIdOf: (vmId: string) => string | undefined,
): Promise<PolicyRunResult> {
  const vms = await services.catalog.listVms();
  const jobs: Job[] = [];
  const skipped: SkippedVm[] = [];
  for (const vm of vms.filter((candidate) => selectsVm(policy.selection, candidate))) {
    const { policyId, repositoryId } = policy;
    try {
      const backup = await resolveBackup(
        { vm, full: false, policyId, repositoryId },
        services.catalog,
      );
      jobs.push(await startJob(backup, services, jobIdOf(vm.vmId)));
    } catch (error) {
      if (!isFailure(error)) throw error;
      skipped.push({
        vmId: vm.vmId,
        vmName: vm.description.name,
        code: error.code,
        reason: error.message,
      });
    }
  }
  return { jobs, skipped };
}
