import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createDynamoCatalog } from "@holdfast/shared/aws/catalog";
import {
  createDocumentClient,
  createSfnClient,
  createSqsClient,
  createSsmClient,
} from "@holdfast/shared/aws/clients";
import { createSsmParameters } from "@holdfast/shared/aws/parameters";
import { createSiteQueue } from "@holdfast/shared/aws/site-queue";
import { createTaskTokens } from "@holdfast/shared/aws/task-tokens";
import type { NewProvider } from "@holdfast/shared/contracts/api";
import { type Job, jobStatesEnded } from "@holdfast/shared/contracts/catalog-items";
import { LocalStackReady } from "@holdfast/shared/contracts/local-stack";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { Driver } from "@holdfast/shared/ports/driver";
import { createJsonLogger, silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";
import { type ApiClient, createApiClient } from "../../console/cli/api-client.ts";
import { environmentOf } from "../../infra/local/provision.ts";
import type { LimitBook } from "../../mover/limits/limit-book.ts";
import { createRepositoryOpener } from "../../mover/open-repository.ts";
import { pollQueue } from "../../mover/tasks/poll-queue.ts";
import { runTask, tendTask } from "../../mover/tasks/task-runner.ts";

/**
 * A whole installation for tests: the local stack as a process of its own (killable), a directory repository, and a
 * mover in this process whose driver the test chooses. One per test file: the AWS SDK takes its endpoint from the environment.
 */
export type Installation = {
  readonly api: ApiClient;
  readonly catalog: Catalog;
  readonly repositoryFolder: string;
  readonly passphrase: string;
  /** For the CLI. */
  readonly tokenFile: string;
  /** Starts a mover with this driver for every provider. */
  startMover(driver: Driver, options?: MoverOptions): RunningMover;
  /** Process ids of the stack and of the mover that it started; the mover is 0 when there is none. */
  processes(): Promise<{ readonly stack: number; readonly mover: number }>;
  /** The last lines of the mover's log, for messages. */
  moverLog(): Promise<string>;
  /** SIGKILL, and a new process on the same state and port. */
  killAndRestartStack(): Promise<void>;
  /** Waits until the job has ended; fails the test after three minutes. */
  ended(jobId: string): Promise<Job>;
  /** Adds a provider and waits for its first sync; without settings one for the memory hypervisor. */
  addProvider(
    providerId: string,
    provider?: Pick<NewProvider, "settings" | "secret">,
  ): Promise<void>;
  stop(): Promise<void>;
};

export type MoverOptions = {
  readonly heartbeatMs?: number;
  readonly visibilitySeconds?: number;
  /** Runs every message so many times at once, as a queue that delivers at least once may. */
  readonly deliveries?: number;
  readonly tasksMax?: number;
  readonly limits?: Pick<LimitBook, "repository">;
};

export type RunningMover = { stop(): Promise<void> };

const endedWithinMs = 180_000;

const memoryProvider: Pick<NewProvider, "settings" | "secret"> = {
  secret: "not used by the memory hypervisor",
  settings: {
    kind: "libvirt",
    ssh: { host: "127.0.0.1", hostKeys: ["ssh-ed25519 AAAA"], login: "password" },
  },
};

const stackEntry = new URL("../../infra/local/main.ts", import.meta.url).pathname;

export type InstallationOptions = {
  /** The stack starts a real mover process with these variables; without it tests start movers in their own process. */
  readonly mover?: Readonly<Record<string, string>>;
  /** Default: a directory in the installation's folder. */
  readonly repositoryUrl?: string;
  /** The repository is of an earlier installation. */
  readonly isRepositoryThere?: boolean;
};

export async function startInstallation(options: InstallationOptions = {}): Promise<Installation> {
  const state = await mkdtemp(join(tmpdir(), "holdfast-installation-"));
  let stack = await startStack(state, 0, options.mover);
  const { port } = new URL(stack.ready.endpoint);
  const environment = environmentOf(stack.ready.endpoint);
  Object.assign(process.env, environment);
  const token = (await readFile(stack.ready.tokenFile, "utf8")).trim();
  const api = createApiClient({ endpoint: stack.ready.endpoint, token, clock: systemClock });
  const catalog = createDynamoCatalog({
    client: createDocumentClient(),
    tableName: environment["CATALOG_TABLE"] ?? "",
    clock: systemClock,
    random: systemRandom,
  });
  const repositoryFolder = options.repositoryUrl ?? join(state, "repository");
  const passphrase = "correct horse battery staple";
  if (options.isRepositoryThere !== true) {
    await createRepository({
      store: await openObjectStore(repositoryFolder),
      passphrase,
      clock: systemClock,
      random: systemRandom,
    });
  }
  await api.call("addRepository", {
    body: { repositoryId: "main", url: repositoryFolder, passphrase },
  });
  const movers = new Set<RunningMover>();

  const ended = async (jobId: string): Promise<Job> => {
    const giveUpAt = Date.now() + endedWithinMs;
    for (;;) {
      const { job } = await api.call("getJob", { id: jobId });
      if (jobStatesEnded.includes(job.state)) return job;
      if (Date.now() > giveUpAt) throw new Error(`job ${jobId} is still ${job.state} ${job.stage}`);
      await systemClock.sleep(50);
    }
  };

  return {
    api,
    catalog,
    repositoryFolder,
    passphrase,
    tokenFile: stack.ready.tokenFile,
    ended,
    startMover(driver, moverOptions = {}) {
      const queueUrl = environment["SITE_QUEUE_URL"] ?? "";
      const mover = startMover(catalog, driver, queueUrl, moverOptions);
      movers.add(mover);
      return mover;
    },
    async processes() {
      const pid = stack.child.pid ?? 0;
      const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
      return { stack: pid, mover: Number(children.trim().split(" ")[0] ?? 0) };
    },
    async moverLog() {
      const text = await readFile(join(state, "log", "mover.log"), "utf8").catch(() => "");
      return text.split("\n").slice(-20).join("\n");
    },
    async killAndRestartStack() {
      stack.child.kill("SIGKILL");
      await once(stack.child, "exit");
      stack = await startStack(state, Number(port), options.mover);
    },
    async addProvider(providerId, provider = memoryProvider) {
      await api.call("addProvider", { body: { providerId, ...provider } });
      const job = await api.call("syncProvider", { id: providerId });
      const { state: jobState, failure } = await ended(job.jobId);
      if (jobState !== "succeeded") throw new Error(`sync ${jobState}: ${failure?.message}`);
    },
    async stop() {
      for (const mover of movers) await mover.stop();
      stack.child.kill("SIGTERM");
      await once(stack.child, "exit");
      await rm(state, { recursive: true, force: true });
    },
  };
}

function startMover(
  catalog: Catalog,
  driver: Driver,
  queueUrl: string,
  { heartbeatMs = 200, visibilitySeconds = 5, deliveries = 1, tasksMax = 4, limits }: MoverOptions,
): RunningMover {
  const stop = new AbortController();
  const moverId = `test-${Buffer.from(systemRandom(4)).toString("hex")}`;
  const queue = createSiteQueue({ client: createSqsClient(), queueUrl, visibilitySeconds });
  const logger = process.env["HOLDFAST_TEST_LOG"]
    ? createJsonLogger((line) => process.stderr.write(`${line}\n`))
    : silentLogger;
  const options = {
    services: {
      catalog,
      clock: systemClock,
      workers: 1,
      openDriver: async () => driver,
      openRepository: createRepositoryOpener({
        catalog,
        parameters: createSsmParameters(createSsmClient()),
        logger,
        ...(limits && { limits }),
      }),
    },
    queue,
    answers: createTaskTokens(createSfnClient()),
    moverId,
    heartbeatMs,
    visibilitySeconds,
    logger,
  };
  const running = pollQueue({
    queue,
    tasksMax,
    drainMs: 100,
    stop: stop.signal,
    clock: systemClock,
    logger,
    tend: (received) => tendTask(received, options),
    run: async (received, drain) => {
      const runs = Array.from({ length: deliveries }, () => runTask(received, options, drain));
      for (const outcome of await Promise.allSettled(runs)) {
        if (outcome.status === "rejected")
          logger.warn("delivery failed", { error: String(outcome.reason) });
      }
    },
  });
  return {
    async stop() {
      stop.abort();
      await running;
    },
  };
}

async function startStack(
  state: string,
  port: number,
  mover: Readonly<Record<string, string>> | undefined,
): Promise<{ child: ChildProcess; ready: LocalStackReady }> {
  const args = [stackEntry, "--state", state, "--port", String(port)];
  if (mover === undefined) args.push("--no-mover");
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...mover },
  });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString("utf8")).slice(-4000);
  });
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, ready: LocalStackReady.parse(JSON.parse(line)) };
  }
  throw new Error(`the local stack did not start: ${errors}`);
}
