import { z } from "zod";

/**
 * Between the CLI's `up` and `infra/local/main.ts`, which it starts by path as `main.ts --state FOLDER [--port N]`.
 * Once every part answers, the stack prints this as one line of JSON on stdout, and nothing else there; logs go to
 * files below `FOLDER/log`. What keeps it from starting is on stderr, its first line `HF-…: message`. SIGTERM drains and ends it.
 */
export const LocalStackReady = z.object({
  ready: z.literal(true),
  /** For AWS_ENDPOINT_URL. */
  endpoint: z.string(),
  /** Address of the HTTP API, on loopback. */
  api: z.string(),
  /** File with the API's token, readable by its owner only. */
  tokenFile: z.string(),
});
export type LocalStackReady = z.infer<typeof LocalStackReady>;
