/**
 * The mover's process: reads its settings, wires drivers, transports and storage, and polls its site's queue until it
 * is told to stop. The only wiring of the mover.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
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
import { MoverSettings } from "@holdfast/shared/contracts/settings";
import { systemClock } from "@holdfast/shared/ports/clock";
import { createJsonLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { z } from "zod";
import { createLimitBook } from "./limits/limit-book.ts";
import { createOwnLimits, followLimitsFile } from "./limits/own-limits.ts";
import { createDriverOpener } from "./open-driver.ts";
import { createRepositoryOpener } from "./open-repository.ts";
import { pollQueue } from "./tasks/poll-queue.ts";
import { showPresence } from "./tasks/presence.ts";
import { runTask, type TaskRunnerOptions, tendTask } from "./tasks/task-runner.ts";
import { createTransports } from "./transport/transports.ts";

const settings = readSettings();
const moverId = `${hostname()}-${process.pid}-${Buffer.from(systemRandom(4)).toString("hex")}`;
const logger = createJsonLogger((line) => process.stderr.write(`${line}\n`)).with({ moverId });

const catalog = createDynamoCatalog({
  client: createDocumentClient(),
  tableName: settings.CATALOG_TABLE,
  clock: systemClock,
  random: systemRandom,
});
const parameters = createSsmParameters(createSsmClient());
const queue = createSiteQueue({
  client: createSqsClient(),
  queueUrl: settings.SITE_QUEUE_URL,
  visibilitySeconds: settings.VISIBILITY_SECONDS,
});

const stop = new AbortController();
for (const name of ["SIGTERM", "SIGINT"] as const) {
  process.on(name, () => {
    logger.info("stopping", { signal: name });
    stop.abort();
  });
}

const own = createOwnLimits(systemClock);
if (settings.LIMITS_FILE !== undefined) {
  const path = settings.LIMITS_FILE;
  await followLimitsFile({ path, limits: own, clock: systemClock, logger, signal: stop.signal });
}
await using limits = createLimitBook({ catalog, own, clock: systemClock, logger });

const options: TaskRunnerOptions = {
  services: {
    catalog,
    clock: systemClock,
    workers: settings.WORKERS,
    openDriver: createDriverOpener({
      catalog,
      parameters,
      transports: createTransports(),
      clock: systemClock,
      limits,
    }),
    openRepository: createRepositoryOpener({
      catalog,
      parameters,
      logger,
      limits,
      indexBytesMax: settings.INDEX_MIB * 2 ** 20,
    }),
  },
  queue,
  answers: createTaskTokens(createSfnClient()),
  moverId,
  heartbeatMs: settings.HEARTBEAT_SECONDS * 1000,
  visibilitySeconds: settings.VISIBILITY_SECONDS,
  logger,
};

const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8")));
const mover = { moverId, siteId: settings.SITE_ID, version };
await using _presence = showPresence({ catalog, mover, clock: systemClock, logger });
logger.info("mover started", { site: settings.SITE_ID, tasksMax: settings.TASKS_MAX });
await pollQueue({
  queue,
  tasksMax: settings.TASKS_MAX,
  drainMs: settings.DRAIN_SECONDS * 1000,
  stop: stop.signal,
  clock: systemClock,
  logger,
  run: (received, drain) => runTask(received, options, drain),
  tend: (received) => tendTask(received, options),
});
logger.info("mover stopped");

/** Ends the process with exit code 2 and a line for each setting that does not fit; never with their values. */
function readSettings(): MoverSettings {
  const parsed = MoverSettings.safeParse(process.env);
  if (parsed.success) return parsed.data;
  for (const { path, message } of parsed.error.issues) {
    process.stderr.write(
      `HF-INPUT-INVALID: the setting ${path.join(".")} of the mover: ${message}\n`,
    );
  }
  process.exit(2);
}
