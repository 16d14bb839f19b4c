import { type Job, jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { Failure } from "@holdfast/shared/domain/failure";
import { parseStorageUrl } from "@holdfast/shared/storage/storage-url";
import { policiesFor } from "../jobs/resolve-backup.ts";
import { derivedJobId, hasEnded, startJob } from "../jobs/start-jobs.ts";
import { createOpenApi } from "./openapi.ts";
import type { ApiServices, Operations } from "./operations.ts";
import { providerView, repositoryView, vmView } from "./views.ts";

/** A mover not seen for so long counts as gone; it says that it is there every 30 seconds. */
const moverSeenMs = 120_000;
/** The newest jobs; one that is older and still runs is searched for by its VM's lock only. */
const jobsSearchedMax = 500;

/** Providers, repositories and VMs. */
export function inventoryOperations(
  services: ApiServices,
): Operations<
  | "getStatus"
  | "getOpenApi"
  | "addProvider"
  | "listProviders"
  | "getProvider"
  | "removeProvider"
  | "testProvider"
  | "syncProvider"
  | "listVms"
  | "getVm"
  | "addRepository"
  | "listRepositories"
  | "limitProvider"
  | "limitRepository"
  | "listExpired"
  | "forgetExpired"
> {
  const { catalog, clock } = services;
  const now = () => new Date(clock.now()).toISOString();

  const startInspect = async (
    providerId: string,
    mode: "test" | "sync",
    idempotencyKey: string | undefined,
  ): Promise<Job> => {
    const { siteId } = await catalog.getProvider(providerId);
    const jobId = idempotencyKey && derivedJobId(["inspect", idempotencyKey]);
    return startJob({ kind: "inspect", mode, providerId, siteId }, services, jobId);
  };

  return {
    async getStatus() {
      const [providers, repositories, policies, vms, movers] = await Promise.all([
        catalog.listProviders(),
        catalog.listRepositories(),
        catalog.listPolicies(),
        catalog.listVms(),
        catalog.listMovers(),
      ]);
      const nowMs = clock.now();
      const isThere = (seenAt: string) => nowMs - Date.parse(seenAt) < moverSeenMs;
      return {
        service: "holdfast",
        apiVersion: 1,
        time: new Date(nowMs).toISOString(),
        providers: providers.length,
        repositories: repositories.length,
        policies: policies.length,
        vms: vms.length,
        movers: movers.filter(({ seenAt }) => isThere(seenAt)),
      };
    },

    getOpenApi: async () => createOpenApi(),

    async addProvider({ body: { secret, ...wanted } }) {
      const secretParameter = newParameterName(services, "providers", wanted.providerId);
      const provider = { ...wanted, secretParameter, createdAt: now() };
      await withSecret(services, { name: secretParameter, value: secret }, () =>
        catalog.putProvider(provider, { create: true }),
      );
      return providerView(provider);
    },

    listProviders: async () => ({ items: (await catalog.listProviders()).map(providerView) }),
    getProvider: async ({ id }) => providerView(await catalog.getProvider(id)),

    async removeProvider({ id, query }) {
      const provider = await catalog.getProvider(id);
      const vms = await catalog.listVms({ providerId: id });
      const held = vms.find(({ lock }) => lock !== undefined);
      if (held?.lock !== undefined && !(await hasEnded(held.lock.jobId, services))) {
        throw new Failure("busy", {
          message: `job ${held.lock.jobId} works on VM ${held.description.name} of provider ${id}`,
          jobId: held.lock.jobId,
        });
      }
      const others = await runningOn(id, services);
      if (others !== undefined) {
        throw new Failure("busy", {
          message: `job ${others.jobId}, a ${others.kind}, works on provider ${id}`,
          jobId: others.jobId,
        });
      }
      const withPoints = vms.filter(({ head }) => head !== undefined);
      if (withPoints.length > 0 && query.force !== true) {
        const kept = withPoints.filter(({ head }) => head?.anchor !== undefined).length;
        const onHosts =
          kept === 0
            ? ""
            : `, and ${kept} keep a snapshot or checkpoint on their host, which only a backup without incremental (--no-incremental) removes`;
        throw new Failure("conflict", {
          message: `${withPoints.length} VMs of provider ${id} have recovery points${onHosts}; with force the provider goes, and all of that stays`,
        });
      }
      await catalog.removeProvider(id);
      await services.parameters.remove(provider.secretParameter);
      return undefined;
    },

    testProvider: ({ id, idempotencyKey }) => startInspect(id, "test", idempotencyKey),
    syncProvider: ({ id, idempotencyKey }) => startInspect(id, "sync", idempotencyKey),

    async listVms({ query: { provider } }) {
      if (provider !== undefined) await catalog.getProvider(provider);
      const vms = await catalog.listVms(provider === undefined ? {} : { providerId: provider });
      return { items: vms.map(vmView) };
    },

    async getVm({ id }) {
      const vm = await catalog.findVm(id);
      const points = await catalog.listPoints(vm.vmId);
      const policies = await policiesFor(vm, catalog);
      return {
        ...vmView(vm),
        points: points.length,
        policyIds: policies.map(({ policyId }) => policyId),
      };
    },

    async addRepository({ body: { repositoryId, url, passphrase } }) {
      refuseCredentials(url);
      parseStorageUrl(url);
      const passphraseParameter = newParameterName(services, "repositories", repositoryId);
      const repository = { repositoryId, url, passphraseParameter, createdAt: now() };
      await withSecret(services, { name: passphraseParameter, value: passphrase }, () =>
        catalog.putRepository(repository, { create: true }),
      );
      return repositoryView(repository);
    },

    limitProvider: async ({ id, body }) => providerView(await catalog.limitProvider(id, body)),
    async listExpired({ id }) {
      await catalog.getRepository(id);
      return { items: [...(await catalog.listExpired(id))] };
    },

    async forgetExpired({ id, body }) {
      await catalog.getRepository(id);
      await catalog.forgetExpired(id, body.removed);
      return undefined;
    },

    limitRepository: async ({ id, body }) =>
      repositoryView(await catalog.limitRepository(id, body)),

    listRepositories: async () => ({
      items: (await catalog.listRepositories()).map(repositoryView),
    }),
  };
}

/** A restore or an inspection, which hold no VM. A provider that goes under them would leave their half-made disks behind. */
async function runningOn(providerId: string, services: ApiServices): Promise<Job | undefined> {
  for (const job of await services.catalog.listJobs({ limit: jobsSearchedMax })) {
    if (job.kind === "backup" || job.providerId !== providerId) continue;
    const isOpen = !jobStatesEnded.includes(job.state);
    if (isOpen && !(await hasEnded(job.jobId, services))) return job;
  }
  return undefined;
}

/** A name of its own for each attempt, so that a refused one never replaces the secret of what is there. */
function newParameterName(services: ApiServices, kind: string, id: string): string {
  const tail = Buffer.from(services.random(8)).toString("hex");
  return `${services.parameterPrefix}/${kind}/${id}/${tail}`;
}

/** The secret is there before anything refers to it, and is taken back when nothing will. */
async function withSecret(
  { parameters }: ApiServices,
  secret: { readonly name: string; readonly value: string },
  refer: () => Promise<void>,
): Promise<void> {
  await parameters.putSecret(secret.name, secret.value);
  try {
    await refer();
  } catch (error) {
    await parameters.remove(secret.name);
    throw error;
  }
}

function refuseCredentials(url: string): void {
  const authority = /^[a-z0-9+.-]+:\/\/([^/?#]*)/i.exec(url)?.[1] ?? "";
  if (!authority.includes("@")) return;
  throw new Failure("input.invalid", {
    message: "the repository's URL must not carry credentials; the movers' own are used",
  });
}
