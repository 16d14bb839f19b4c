import type {
  BackupJob,
  DiskProgress,
  ExpiredPoint,
  ImportedPoint,
  Job,
  JobLogLine,
  JobState,
  Mover,
  Policy,
  Provider,
  RateLimits,
  RecoveryPoint,
  Repository,
  TaskRecord,
  Vm,
} from "../contracts/catalog-items.ts";
import type { InventoryItem } from "./driver.ts";
import type { Ledger } from "./ledger.ts";

/**
 * The control plane's memory. Every method is one conditional write or a query; each invariant lives in one item
 * (no transactions). Failures: `not-found`, `conflict`, `busy`, `fence.lost`, `aws.failed`.
 */
export interface Catalog {
  putProvider(provider: Provider, options: { readonly create: boolean }): Promise<void>;
  getProvider(providerId: string): Promise<Provider>;
  listProviders(): Promise<readonly Provider[]>;
  /** Its VMs with points stay, marked as gone; the others are removed with it. */
  removeProvider(providerId: string): Promise<void>;
  recordSync(
    providerId: string,
    outcome: { readonly at: string; readonly error?: string },
  ): Promise<void>;

  /** With `create`, a taken id is `conflict`. */
  putRepository(repository: Repository, options?: { readonly create: boolean }): Promise<void>;
  getRepository(repositoryId: string): Promise<Repository>;
  listRepositories(): Promise<readonly Repository[]>;

  /** Replaces the limits and nothing else, and returns the item. */
  limitProvider(providerId: string, limits: RateLimits): Promise<Provider>;
  limitRepository(repositoryId: string, limits: RateLimits): Promise<Repository>;

  /** Creates or updates the VM with this provider and external id; keeps fence, lock and head. Returns its id. */
  upsertVm(providerId: string, item: InventoryItem, seenAt: string): Promise<string>;
  /** Marks VMs of the provider that were not seen since `seenAt` as gone. Returns how many. */
  markGone(providerId: string, seenAt: string): Promise<number>;
  getVm(vmId: string): Promise<Vm>;
  /** By id, else by exact name; `conflict` names the candidates when several VMs have the name. */
  findVm(idOrName: string): Promise<Vm>;
  listVms(filter?: { readonly providerId?: string }): Promise<readonly Vm[]>;
  /** Takes the VM's lock for a job and returns the fence; again for the same job returns the same fence. `busy` names the holding job. */
  lockVm(vmId: string, jobId: string): Promise<number>;
  /** Gives the lock back if this job holds it. */
  unlockVm(vmId: string, jobId: string): Promise<void>;
  /** The commit: sets the VM's head if the job still holds the lock with this fence, else `fence.lost`. Idempotent. Then lists the point. */
  commitPoint(
    point: RecoveryPoint,
    options: { readonly fence: number; readonly anchor: NonNullable<Vm["head"]>["anchor"] },
  ): Promise<void>;
  /** Takes the anchor off the VM's head (it was removed from the hypervisor), so that the next backup is full. */
  clearAnchor(vmId: string, jobId: string): Promise<void>;

  /** With `create`, a taken id is `conflict`. */
  putPolicy(policy: Policy, options?: { readonly create: boolean }): Promise<void>;
  getPolicy(policyId: string): Promise<Policy>;
  listPolicies(): Promise<readonly Policy[]>;
  removePolicy(policyId: string): Promise<void>;

  /** A mover says that it is there; replaces what it said before. */
  recordMover(mover: Mover): Promise<void>;
  /** Also those that died without a word: look at `seenAt`. */
  listMovers(): Promise<readonly Mover[]>;
  forgetMover(moverId: string): Promise<void>;

  createJob(job: Job): Promise<void>;
  getJob(jobId: string): Promise<Job>;
  /** Newest first; with `vmId` the backups of that VM and the restores of its points. */
  listJobs(filter: { readonly limit: number; readonly vmId?: string }): Promise<readonly Job[]>;
  /**
   * Changes fields of a job that has not ended; `conflict` if it has, unless `state` says the same end.
   * `running` only follows `queued` or itself: a job that is being cancelled is `conflict`.
   */
  updateJob(jobId: string, change: JobChange): Promise<void>;
  /** Running or queued becomes cancelling; an ended job is `conflict`. */
  requestCancel(jobId: string): Promise<void>;
  appendLog(jobId: string, line: JobLogLine): Promise<void>;
  listLog(jobId: string): Promise<readonly JobLogLine[]>;
  putProgress(jobId: string, progress: DiskProgress): Promise<void>;
  listProgress(jobId: string): Promise<readonly DiskProgress[]>;

  /** A mover takes a task: returns the record with the next claim number. A finished task is returned with its result, unclaimed. */
  claimTask(jobId: string, taskName: string, moverId: string): Promise<TaskRecord>;
  /** `fence.lost` when another mover has claimed it since. */
  confirmClaim(jobId: string, record: TaskRecord): Promise<void>;
  /** Stores the result under the claim; `fence.lost` when another mover has claimed it since. */
  finishTask(jobId: string, record: TaskRecord, result: Record<string, unknown>): Promise<void>;
  /** The stored result of a finished task, or undefined. */
  getTaskResult(jobId: string, taskName: string): Promise<Record<string, unknown> | undefined>;
  /** A transfer's checkpoint: replaced under the claim only. */
  putCheckpoint(
    jobId: string,
    record: TaskRecord,
    checkpoint: Record<string, unknown>,
  ): Promise<void>;
  getCheckpoint(jobId: string, taskName: string): Promise<Record<string, unknown> | undefined>;

  getPoint(pointId: string): Promise<RecoveryPoint>;
  /** Newest first. */
  listPoints(vmId: string): Promise<readonly RecoveryPoint[]>;
  /**
   * Lists a point that a repository has, and its VM where there is none. What is there already wins: `present` for the same object, `conflict`
   * for another one under the point's id. The VM's head becomes the point if that is newer and no job holds the VM or left an anchor.
   */
  importPoint(imported: ImportedPoint): Promise<"added" | "present">;
  /** Takes points off the list (retention), and notes them for the next collection of their repository. */
  unlistPoints(points: readonly RecoveryPoint[]): Promise<void>;
  /** What was unlisted, may be removed from the repository, and is not known to be. What was listed again since is not among it. */
  listExpired(repositoryId: string): Promise<readonly ExpiredPoint[]>;
  /** A collection has removed these; unknown ones are no failure. */
  forgetExpired(repositoryId: string, pointIds: readonly string[]): Promise<void>;

  /** The ledger of one VM (backups) or of one restore job. */
  ledger(owner: { readonly vmId: string } | { readonly restoreJobId: string }): Ledger;
}

export type JobChange = {
  readonly state?: JobState;
  readonly stage?: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly fence?: number;
  readonly failure?: Job["failure"];
  readonly warnings?: readonly string[];
  readonly previous?: BackupJob["previous"];
  readonly repositorySessionId?: string;
  readonly pointId?: string;
  readonly restored?: {
    readonly externalId: string;
    readonly name: string;
    readonly started: boolean;
  };
  readonly findings?: readonly Record<string, unknown>[];
  readonly vmsSeen?: number;
};
