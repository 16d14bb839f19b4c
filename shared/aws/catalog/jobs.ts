import { isDeepStrictEqual } from "node:util";
import { DiskProgress, Job, JobLogLine, jobStatesEnded } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import type { Clock } from "../../ports/clock.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { notFound, parseItem } from "./entities.ts";
import { absent, type Item, type Key, type Table } from "./table.ts";

/**
 * Jobs with their progress and log beside them; index: all jobs by time. A reference beside the VM lists its jobs:
 * written before the job, so that no job is missing from the list; a reference without a job is passed over.
 */
type Jobs = Pick<
  Catalog,
  | "createJob"
  | "getJob"
  | "listJobs"
  | "updateJob"
  | "requestCancel"
  | "appendLog"
  | "listLog"
  | "putProgress"
  | "listProgress"
>;

const partitionOfAll = "JOB";
/** The newest lines that are given back; a job that logs more is in trouble anyway. */
const logLinesMax = 2000;
const jobsReadAtOnce = 20;

const ended = Object.fromEntries(jobStatesEnded.map((state, index) => [`:ended${index}`, state]));
const notEnded = `NOT #state IN (${Object.keys(ended).join(", ")})`;

export function createJobs(table: Table, clock: Clock, random: RandomBytes): Jobs {
  let logged = 0;

  const findJob = async (jobId: string): Promise<Job | undefined> => {
    const item = await table.get(keyOf(jobId));
    return item && parseItem(Job, item, `job ${jobId}`);
  };
  const getJob = async (jobId: string): Promise<Job> => {
    const job = await findJob(jobId);
    if (job === undefined) throw notFound("job", jobId);
    return job;
  };
  const allJobs = async function* (): AsyncGenerator<Job> {
    const newest = { index: "GSI1", partition: partitionOfAll, newestFirst: true } as const;
    for await (const item of table.query({ ...newest, pageSize: 100 })) {
      yield parseItem(Job, item, `job ${String(item["jobId"])}`);
    }
  };
  const jobsOfVm = async function* (vmId: string): AsyncGenerator<Job> {
    const newest = { partition: `VM#${vmId}`, prefix: "JOB#", newestFirst: true };
    const jobIds: string[] = [];
    const read = async () => (await Promise.all(jobIds.splice(0).map(findJob))).filter(isJob);
    for await (const item of table.query({ ...newest, pageSize: 100 })) {
      jobIds.push(String(item["jobId"]));
      if (jobIds.length >= jobsReadAtOnce) yield* await read();
    }
    yield* await read();
  };

  return {
    async createJob(job) {
      const order = `${job.createdAt}#${job.jobId}`;
      if ("vmId" in job && job.vmId !== undefined) {
        await table.put({ PK: `VM#${job.vmId}`, SK: `JOB#${order}`, jobId: job.jobId });
      }
      const item = { ...job, ...keyOf(job.jobId), GSI1PK: partitionOfAll, GSI1SK: order };
      if (await table.put(item, absent)) return;
      // Our own write, whose answer got lost and which the SDK sent again, is a success.
      if (isDeepStrictEqual(await findJob(job.jobId), job)) return;
      throw new Failure("conflict", {
        message: `job ${job.jobId} exists already`,
        jobId: job.jobId,
      });
    },

    getJob,

    async listJobs({ limit, vmId }) {
      const jobs: Job[] = [];
      if (limit <= 0) return jobs;
      for await (const job of vmId === undefined ? allJobs() : jobsOfVm(vmId)) {
        jobs.push(job);
        if (jobs.length >= limit) break;
      }
      return jobs;
    },

    async updateJob(jobId, change) {
      const { state } = change;
      const values: Item = { ...ended };
      let condition = `attribute_exists(#PK) AND ${notEnded}`;
      if (state !== undefined && jobStatesEnded.includes(state)) {
        values[":same"] = state;
        condition = `attribute_exists(#PK) AND (${notEnded} OR #state = :same)`;
      }
      if (state === "running") {
        Object.assign(values, { ":queued": "queued", ":running": "running" });
        condition = `attribute_exists(#PK) AND ${notEnded} AND #state IN (:queued, :running)`;
      }
      if (Object.values(change).every((value) => value === undefined)) return;
      const after = await table.update(keyOf(jobId), { set: change, if: condition, values });
      if (after !== undefined) return;
      const job = await getJob(jobId);
      throw new Failure("conflict", { message: `job ${jobId} is ${job.state} already` });
    },

    async requestCancel(jobId) {
      const after = await table.update(keyOf(jobId), {
        set: { state: "cancelling" },
        if: `attribute_exists(#PK) AND ${notEnded}`,
        values: ended,
      });
      if (after !== undefined) return;
      const job = await getJob(jobId);
      throw new Failure("conflict", { message: `job ${jobId} has ended: ${job.state}` });
    },

    async appendLog(jobId, line) {
      logged += 1;
      const at = new Date(clock.now()).toISOString();
      const tail = Buffer.from(random(6)).toString("hex");
      const order = `${at}#${String(logged).padStart(9, "0")}#${tail}`;
      await table.put({ PK: `JOB#${jobId}`, SK: `LOG#${order}`, ...JobLogLine.parse(line) });
    },

    async listLog(jobId) {
      const lines: JobLogLine[] = [];
      const newest = table.query({ partition: `JOB#${jobId}`, prefix: "LOG#", newestFirst: true });
      for await (const item of newest) {
        lines.push(parseItem(JobLogLine, item, `job ${jobId}'s log`));
        if (lines.length >= logLinesMax) break;
      }
      return lines.reverse();
    },

    async putProgress(jobId, progress) {
      await table.put({ PK: `JOB#${jobId}`, SK: `DISK#${progress.diskKey}`, ...progress });
    },

    async listProgress(jobId) {
      const disks: DiskProgress[] = [];
      for await (const item of table.query({ partition: `JOB#${jobId}`, prefix: "DISK#" })) {
        disks.push(parseItem(DiskProgress, item, `job ${jobId}'s progress`));
      }
      return disks;
    },
  };
}

function isJob(job: Job | undefined): job is Job {
  return job !== undefined;
}

function keyOf(jobId: string): Key {
  return { PK: `JOB#${jobId}`, SK: "JOB" };
}
