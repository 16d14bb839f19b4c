import { z } from "zod";
import { BackupOptions, Retention, VmSelection } from "../domain/policy.ts";
import {
  DiskProgress,
  ExpiredPoint,
  ImportedPoint,
  Job,
  JobLogLine,
  Mover,
  Policy,
  Provider,
  ProviderSettings,
  RateLimits,
  RecoveryPoint,
  Repository,
  RestoreOptionsItem,
  Vm,
} from "./catalog-items.ts";

/**
 * The API as data: one table of routes from which the handler, the OpenAPI document and the clients come.
 * JSON in and out below `/v1`; `Authorization: Bearer TOKEN` on every call; failures are RFC 9457 problems.
 * Unknown fields are refused. Calls that start jobs answer 202 with the job and take an `Idempotency-Key`.
 * No answer ever carries a secret.
 */
export const bodyBytesMax = 64 * 1024;

/** `application/problem+json`. Branch on `code`. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  /** What happened, for people. */
  detail: z.string(),
  /** Failure code, `not-found`. */
  code: z.string(),
  /** The code as shown to people, `HF-NOT-FOUND`. */
  id: z.string(),
  advice: z.string(),
  causes: z.array(z.string()),
  /** With `busy`: the job that holds the VM. */
  jobId: z.string().optional(),
});
export type Problem = z.infer<typeof Problem>;

/** Identifiers chosen by people: 1 to 63 lower-case letters, digits and dashes. */
const NewId = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 lower-case letters, digits and dashes");
const Reference = z.string().min(1).max(256);

export const ApiStatus = z.object({
  service: z.literal("holdfast"),
  apiVersion: z.literal(1),
  time: z.string(),
  providers: z.int(),
  repositories: z.int(),
  policies: z.int(),
  vms: z.int(),
  /** Seen in the last two minutes. Without one at a site, its jobs wait. */
  movers: z.array(Mover),
});
export type ApiStatus = z.infer<typeof ApiStatus>;

export const NewProvider = z.strictObject({
  providerId: NewId,
  siteId: NewId.default("local"),
  settings: ProviderSettings,
  /** The private key in OpenSSH's or PEM form, or the password, as `settings.ssh.login` says. Goes in, never comes out. */
  secret: z.string().min(1).max(32_768),
});
export type NewProvider = z.input<typeof NewProvider>;

export const ProviderView = Provider.omit({ secretParameter: true });
export type ProviderView = z.infer<typeof ProviderView>;

export const NewRepository = z.strictObject({
  repositoryId: NewId,
  /** A directory or `s3://bucket/prefix`, as the movers see it; without credentials. */
  url: z.string().min(1).max(2048),
  passphrase: z.string().min(1).max(1024),
});
export type NewRepository = z.input<typeof NewRepository>;

export const RepositoryView = Repository.omit({ passphraseParameter: true });
export type RepositoryView = z.infer<typeof RepositoryView>;

export const VmView = Vm.omit({ fence: true, lock: true, head: true }).extend({
  name: z.string(),
  /** The job that holds the VM now. */
  jobId: z.string().optional(),
  lastPoint: z
    .object({ pointId: z.string(), repositoryId: z.string(), takenAt: z.string().optional() })
    .optional(),
});
export type VmView = z.infer<typeof VmView>;

export const VmDetail = VmView.extend({
  points: z.int(),
  /** Policies that select this VM, in the order in which they apply. */
  policyIds: z.array(z.string()),
});
export type VmDetail = z.infer<typeof VmDetail>;

export const PolicyChange = z.strictObject({
  repositoryId: Reference,
  selection: VmSelection,
  schedule: Policy.shape.schedule,
  timeZone: Policy.shape.timeZone,
  options: BackupOptions.prefault({}),
  retention: Retention.prefault({}),
});
export type PolicyChange = z.input<typeof PolicyChange>;

export const NewPolicy = PolicyChange.extend({ policyId: NewId });
export type NewPolicy = z.input<typeof NewPolicy>;

/** Given fields win over the policy's; no field has a default here. */
export const BackupOverrides = z.strictObject({
  strategy: BackupOptions.shape.strategy.unwrap().optional(),
  quiesce: BackupOptions.shape.quiesce.unwrap().optional(),
  excludeDisks: BackupOptions.shape.excludeDisks.unwrap().optional(),
  preCommands: BackupOptions.shape.preCommands.unwrap().optional(),
  postCommands: BackupOptions.shape.postCommands.unwrap().optional(),
  incremental: BackupOptions.shape.incremental.unwrap().optional(),
  sampleShare: BackupOptions.shape.sampleShare.unwrap().optional(),
  scratchBytesMin: BackupOptions.shape.scratchBytesMin.unwrap().optional(),
});
export type BackupOverrides = z.input<typeof BackupOverrides>;

export const NewBackup = z.strictObject({
  /** Id or name of the VM. */
  vm: Reference,
  full: z.boolean().default(false),
  /** Its options and repository are used; without it the first policy (by id) that selects the VM. */
  policyId: Reference.optional(),
  /** Default: the policy's, else the only repository there is. */
  repositoryId: Reference.optional(),
  options: BackupOverrides.optional(),
});
export type NewBackup = z.input<typeof NewBackup>;

export const NewRestore = RestoreOptionsItem;
export type NewRestore = z.input<typeof NewRestore>;

export const JobDetail = z.object({
  job: Job,
  progress: z.array(DiskProgress),
  log: z.array(JobLogLine),
});
export type JobDetail = z.infer<typeof JobDetail>;

export const PolicyRun = z.object({
  jobs: z.array(Job),
  skipped: z.array(
    z.object({ vmId: z.string(), vmName: z.string(), code: z.string(), reason: z.string() }),
  ),
});
export type PolicyRun = z.infer<typeof PolicyRun>;

const listOf = <Item extends z.ZodType>(item: Item) => z.object({ items: z.array(item) });
/** In a query string: present as `true` or `false`. */
const QueryFlag = z.enum(["true", "false"]).transform((text) => text === "true");

export type Route = {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** With `{id}` where an id (or, for VMs, a name) stands; URL-encode it. */
  readonly path: string;
  readonly summary: string;
  /** Status of success; 204 has no body. */
  readonly status: 200 | 201 | 202 | 204;
  readonly body?: z.ZodType;
  readonly query?: z.ZodObject;
  readonly response?: z.ZodType;
  /** Takes an `Idempotency-Key`: the same key again answers with the same job. */
  readonly startsJobs?: true;
};

export const routes = {
  getStatus: {
    method: "GET",
    path: "/v1/status",
    summary: "What this installation holds",
    status: 200,
    response: ApiStatus,
  },
  getOpenApi: {
    method: "GET",
    path: "/v1/openapi.json",
    summary: "This API as OpenAPI 3.1",
    status: 200,
    response: z.record(z.string(), z.unknown()),
  },
  addProvider: {
    method: "POST",
    path: "/v1/providers",
    summary: "Add a provider and keep its secret",
    status: 201,
    body: NewProvider,
    response: ProviderView,
  },
  listProviders: {
    method: "GET",
    path: "/v1/providers",
    summary: "List providers",
    status: 200,
    response: listOf(ProviderView),
  },
  getProvider: {
    method: "GET",
    path: "/v1/providers/{id}",
    summary: "Show a provider",
    status: 200,
    response: ProviderView,
  },
  removeProvider: {
    method: "DELETE",
    path: "/v1/providers/{id}",
    summary: "Remove a provider; refused while its VMs have points, unless forced",
    status: 204,
    query: z.strictObject({ force: QueryFlag.optional() }),
  },
  limitProvider: {
    method: "PUT",
    path: "/v1/providers/{id}/limits",
    summary:
      "Replace the limits of traffic with a provider's disks; running jobs follow within seconds",
    status: 200,
    body: RateLimits,
    response: ProviderView,
  },
  testProvider: {
    method: "POST",
    path: "/v1/providers/{id}/test",
    summary: "Check login, versions, rights and tools of a provider",
    status: 202,
    response: Job,
    startsJobs: true,
  },
  syncProvider: {
    method: "POST",
    path: "/v1/providers/{id}/sync",
    summary: "Read a provider's inventory",
    status: 202,
    response: Job,
    startsJobs: true,
  },
  listVms: {
    method: "GET",
    path: "/v1/vms",
    summary: "List VMs",
    status: 200,
    query: z.strictObject({ provider: Reference.optional() }),
    response: listOf(VmView),
  },
  getVm: {
    method: "GET",
    path: "/v1/vms/{id}",
    summary: "Show a VM, by id or by name",
    status: 200,
    response: VmDetail,
  },
  addPolicy: {
    method: "POST",
    path: "/v1/policies",
    summary: "Add a policy",
    status: 201,
    body: NewPolicy,
    response: Policy,
  },
  listPolicies: {
    method: "GET",
    path: "/v1/policies",
    summary: "List policies",
    status: 200,
    response: listOf(Policy),
  },
  getPolicy: {
    method: "GET",
    path: "/v1/policies/{id}",
    summary: "Show a policy",
    status: 200,
    response: Policy,
  },
  changePolicy: {
    method: "PUT",
    path: "/v1/policies/{id}",
    summary: "Replace a policy's definition",
    status: 200,
    body: PolicyChange,
    response: Policy,
  },
  removePolicy: {
    method: "DELETE",
    path: "/v1/policies/{id}",
    summary: "Remove a policy and its schedule; points stay",
    status: 204,
  },
  listPolicyMatches: {
    method: "GET",
    path: "/v1/policies/{id}/matches",
    summary: "List the VMs that a policy selects now",
    status: 200,
    response: listOf(VmView),
  },
  runPolicy: {
    method: "POST",
    path: "/v1/policies/{id}/run",
    summary: "Back up every VM that a policy selects",
    status: 202,
    response: PolicyRun,
    startsJobs: true,
  },
  startBackup: {
    method: "POST",
    path: "/v1/backups",
    summary: "Back up one VM",
    status: 202,
    body: NewBackup,
    response: Job,
    startsJobs: true,
  },
  listJobs: {
    method: "GET",
    path: "/v1/jobs",
    summary: "List jobs, newest first",
    status: 200,
    query: z.strictObject({
      limit: z.coerce.number().int().min(1).max(500).default(50),
      vm: Reference.optional(),
    }),
    response: listOf(Job),
  },
  getJob: {
    method: "GET",
    path: "/v1/jobs/{id}",
    summary: "Show a job with its disks' progress and its log",
    status: 200,
    response: JobDetail,
  },
  cancelJob: {
    method: "POST",
    path: "/v1/jobs/{id}/cancel",
    summary: "Ask a job to stop and to remove what it made",
    status: 202,
    response: Job,
  },
  listPoints: {
    method: "GET",
    path: "/v1/points",
    summary: "List a VM's recovery points, newest first",
    status: 200,
    query: z.strictObject({ vm: Reference }),
    response: listOf(RecoveryPoint),
  },
  getPoint: {
    method: "GET",
    path: "/v1/points/{id}",
    summary: "Show a recovery point",
    status: 200,
    response: RecoveryPoint,
  },
  importPoint: {
    method: "POST",
    path: "/v1/points",
    summary: "List a recovery point that a repository has; what is listed already stays as it is",
    status: 200,
    body: ImportedPoint,
    response: z.object({ outcome: z.enum(["added", "present"]) }),
  },
  startRestore: {
    method: "POST",
    path: "/v1/restores",
    summary: "Restore a recovery point",
    status: 202,
    body: NewRestore,
    response: Job,
    startsJobs: true,
  },
  addRepository: {
    method: "POST",
    path: "/v1/repositories",
    summary: "Add a repository and keep its passphrase",
    status: 201,
    body: NewRepository,
    response: RepositoryView,
  },
  listRepositories: {
    method: "GET",
    path: "/v1/repositories",
    summary: "List repositories",
    status: 200,
    response: listOf(RepositoryView),
  },
  listExpired: {
    method: "GET",
    path: "/v1/repositories/{id}/expired",
    summary:
      "List the points that retention took off the list and of which the repository still has the data",
    status: 200,
    response: listOf(ExpiredPoint),
  },
  forgetExpired: {
    method: "POST",
    path: "/v1/repositories/{id}/expired",
    summary: "Say which expired points a collection has removed from the repository",
    status: 204,
    body: z.strictObject({ removed: z.array(z.string().min(1).max(128)).min(1).max(1000) }),
  },
  limitRepository: {
    method: "PUT",
    path: "/v1/repositories/{id}/limits",
    summary:
      "Replace the limits of traffic with a repository's storage; running jobs follow within seconds",
    status: 200,
    body: RateLimits,
    response: RepositoryView,
  },
} as const satisfies Record<string, Route>;

export type RouteName = keyof typeof routes;

type Of<Name extends RouteName, Field extends string> = (typeof routes)[Name] extends {
  readonly [key in Field]: infer Schema extends z.ZodType;
}
  ? Schema
  : undefined;
/** What a client sends and gets, by route: `RouteBody<"startBackup">`. */
export type RouteBody<Name extends RouteName> =
  Of<Name, "body"> extends z.ZodType ? z.input<Of<Name, "body">> : undefined;
export type RouteQuery<Name extends RouteName> =
  Of<Name, "query"> extends z.ZodType ? z.input<Of<Name, "query">> : undefined;
export type RouteResponse<Name extends RouteName> =
  Of<Name, "response"> extends z.ZodType ? z.output<Of<Name, "response">> : undefined;
