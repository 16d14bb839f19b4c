import { z } from "zod";

/** Environment of the functions and movers: infra and the local stack build it, the code parses it. */
export const FunctionSettings = z.object({
  CATALOG_TABLE: z.string().min(1),
  /** State machine ARNs that the API and schedules start. */
  BACKUP_STATE_MACHINE_ARN: z.string().optional(),
  RESTORE_STATE_MACHINE_ARN: z.string().optional(),
  INSPECT_STATE_MACHINE_ARN: z.string().optional(),
  /** Cleans up after executions of the others that ended without ending their job. */
  RECOVER_STATE_MACHINE_ARN: z.string().optional(),
  /** Queue URLs are this prefix and the site id. */
  SITE_QUEUE_URL_PREFIX: z.string().optional(),
  EVENT_BUS_NAME: z.string().optional(),
  /** Parameters of this installation live below this path, `/holdfast/local`. */
  PARAMETER_PREFIX: z.string().default("/holdfast"),
  /** EventBridge Scheduler group and target for policies. */
  SCHEDULE_GROUP: z.string().optional(),
  SCHEDULE_TARGET_ARN: z.string().optional(),
  SCHEDULE_ROLE_ARN: z.string().optional(),
  /** Name of the parameter with the SHA-256 (hex) of the API token that is accepted, where no gateway authorises. */
  API_TOKEN_PARAMETER: z.string().optional(),
});
export type FunctionSettings = z.infer<typeof FunctionSettings>;

const OwnRate = z.union([z.int().min(0), z.literal("off")]).optional();

/**
 * Limits of one mover, or of a stand-alone command: bytes a second out of and into disks and storage, and calls a second. Absent
 * is off; 0 lets nothing pass.
 */
export const OwnRates = z.strictObject({
  read: OwnRate,
  write: OwnRate,
  diskRequests: OwnRate,
  download: OwnRate,
  upload: OwnRate,
  storeRequests: OwnRate,
});
export type OwnRates = z.infer<typeof OwnRates>;

export const MoverSettings = z.object({
  CATALOG_TABLE: z.string().min(1),
  SITE_ID: z.string().min(1),
  SITE_QUEUE_URL: z.string().min(1),
  /** Tasks at once in this mover. */
  TASKS_MAX: z.coerce.number().int().min(1).max(64).default(4),
  /** Seconds between heartbeats; the state machines allow 90 between two. */
  HEARTBEAT_SECONDS: z.coerce.number().min(0.1).max(60).default(15),
  /** Seconds a received message stays hidden; renewed with each heartbeat. */
  VISIBILITY_SECONDS: z.coerce.number().int().min(2).max(43_200).default(45),
  /** Seconds that running tasks get to end by themselves after SIGTERM, before they are handed back. */
  DRAIN_SECONDS: z.coerce.number().min(0).max(3600).default(10),
  /** Worker threads that hash, compress and seal. */
  WORKERS: z.coerce.number().int().min(1).max(64).optional(),
  /** Memory for the chunk index, for each repository in use; beyond it the index is sparse: some duplicates are stored again. */
  INDEX_MIB: z.coerce.number().int().min(1).max(4095).default(512),
  /** File with this mover's own limits, `{ "upload": "20M", "read": "off" }`; followed while it runs. */
  LIMITS_FILE: z.string().min(1).optional(),
});
export type MoverSettings = z.infer<typeof MoverSettings>;
