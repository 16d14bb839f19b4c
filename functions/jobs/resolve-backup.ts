import type { BackupJob, Policy, Vm } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import { BackupOptions } from "@holdfast/shared/domain/policy";
import { selectsVm } from "@holdfast/shared/domain/policy-selection";
import type { Catalog } from "@holdfast/shared/ports/catalog";

export type BackupRequest = {
  readonly vm: Vm;
  readonly full: boolean;
  readonly policyId?: string | undefined;
  readonly repositoryId?: string | undefined;
  readonly options?:
    | { readonly [Option in keyof BackupOptions]?: BackupOptions[Option] | undefined }
    | undefined;
};

/**
 * What exactly is to be done: each option as given, else the policy's, else the default. The policy is the one given,
 * else the first (by id) that selects the VM; the repository the one given, else the policy's, else the only one.
 */
export async function resolveBackup(
  request: BackupRequest,
  catalog: Catalog,
): Promise<Omit<BackupJob, "jobId" | "state" | "createdAt" | "warnings">> {
  const { vm, full } = request;
  if (vm.gone) {
    throw new Failure("vm.gone", {
      message: `VM ${vm.description.name} was not found by the last sync of ${vm.providerId}`,
    });
  }
  const { siteId } = await catalog.getProvider(vm.providerId);
  const policy =
    request.policyId === undefined
      ? await firstPolicyFor(vm, catalog)
      : await catalog.getPolicy(request.policyId);
  const { repositoryId } = await chooseRepository(
    request.repositoryId ?? policy?.repositoryId,
    catalog,
  );
  return {
    kind: "backup",
    providerId: vm.providerId,
    siteId,
    vmId: vm.vmId,
    vmName: vm.description.name,
    repositoryId,
    full,
    options: BackupOptions.parse({ ...policy?.options, ...withoutAbsent(request.options ?? {}) }),
    ...(policy === undefined ? {} : { policyId: policy.policyId }),
  };
}

/** Policies in the order in which they apply. */
export async function policiesFor(vm: Vm, catalog: Catalog): Promise<readonly Policy[]> {
  const policies = await catalog.listPolicies();
  return policies
    .filter(({ selection }) => selectsVm(selection, vm))
    .toSorted((a, b) => (a.policyId < b.policyId ? -1 : 1));
}

async function firstPolicyFor(vm: Vm, catalog: Catalog): Promise<Policy | undefined> {
  return (await policiesFor(vm, catalog))[0];
}

async function chooseRepository(repositoryId: string | undefined, catalog: Catalog) {
  if (repositoryId !== undefined) return await catalog.getRepository(repositoryId);
  const repositories = await catalog.listRepositories();
  const [only] = repositories;
  if (only === undefined) {
    throw new Failure("not-found", { message: "there is no repository yet; add one first" });
  }
  if (repositories.length > 1) {
    const names = repositories.map((repository) => repository.repositoryId).join(", ");
    throw new Failure("input.invalid", { message: `name one of the repositories: ${names}` });
  }
  return only;
}

function withoutAbsent(options: object): object {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
