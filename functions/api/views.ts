import type { ProviderView, RepositoryView, VmView } from "@holdfast/shared/contracts/api";
import type { Provider, Repository, Vm } from "@holdfast/shared/contracts/catalog-items";

/** Catalog items as the API shows them: without the names of secrets and the machinery of locks. */
export function providerView({ secretParameter: _secret, ...view }: Provider): ProviderView {
  return view;
}

export function repositoryView({
  passphraseParameter: _secret,
  ...view
}: Repository): RepositoryView {
  return view;
}

export function vmView({ fence: _fence, lock, head, ...vm }: Vm): VmView {
  return {
    ...vm,
    name: vm.description.name,
    ...(lock === undefined ? {} : { jobId: lock.jobId }),
    ...(head === undefined
      ? {}
      : {
          lastPoint: {
            pointId: head.pointId,
            repositoryId: head.repositoryId,
            ...(head.takenAt === undefined ? {} : { takenAt: head.takenAt }),
          },
        }),
  };
}
