import { isFailure } from "@holdfast/shared/domain/failure";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { resolveBackup } from "../jobs/resolve-backup.ts";
import { derivedJobId, hasEnded, startJob } from "../jobs/start-jobs.ts";
import type { ApiServices, Operations } from "./operations.ts";

/** Backups, restores, jobs and recovery points. */
export function jobOperations(
  services: ApiServices,
): Operations<
  | "startBackup"
  | "startRestore"
  | "listJobs"
  | "getJob"
  | "cancelJob"
  | "listPoints"
  | "getPoint"
  | "importPoint"
> {
  const { catalog } = services;
  return {
    async startBackup({ body, idempotencyKey }) {
      const vm = await catalog.findVm(body.vm);
      const backup = await resolveBackup({ ...body, vm }, catalog);
      return startJob(backup, services, idempotencyKey && derivedJobId(["backup", idempotencyKey]));
    },

    async startRestore({ body, idempotencyKey }) {
      const point = await catalog.getPoint(body.pointId);
      const { providerId, siteId } = await catalog.getProvider(body.providerId ?? point.providerId);
      return startJob(
        {
          kind: "restore",
          providerId,
          siteId,
          repositoryId: point.repositoryId,
          vmId: point.vmId,
          vmName: point.vmName,
          restore: body,
        },
        services,
        idempotencyKey && derivedJobId(["restore", idempotencyKey]),
      );
    },

    async listJobs({ query: { limit, vm } }) {
      const vmId = vm === undefined ? {} : { vmId: (await catalog.findVm(vm)).vmId };
      return { items: [...(await catalog.listJobs({ limit, ...vmId }))] };
    },

    async getJob({ id }) {
      const job = await catalog.getJob(id);
      const [progress, log] = await Promise.all([catalog.listProgress(id), catalog.listLog(id)]);
      return { job, progress: [...progress], log: [...log] };
    },

    async cancelJob({ id }) {
      await catalog.requestCancel(id);
      // One that was left without a workflow, or by it, ends as well and gives its VM back.
      await hasEnded(id, services);
      return catalog.getJob(id);
    },

    async listPoints({ query: { vm } }) {
      return { items: [...(await catalog.listPoints(await findVmId(vm, catalog)))] };
    },

    getPoint: ({ id }) => catalog.getPoint(id),

    async importPoint({ body }) {
      await catalog.getRepository(body.point.repositoryId);
      return { outcome: await catalog.importPoint(body) };
    },
  };
}

/** Points may outlive the catalog's record of their VM: an unknown id is looked up as it stands. */
async function findVmId(vm: string, catalog: Catalog): Promise<string> {
  try {
    return (await catalog.findVm(vm)).vmId;
  } catch (error) {
    if (isFailure(error, "not-found") && (await catalog.listPoints(vm)).length > 0) return vm;
    throw error;
  }
}
