import { z } from "zod";

/**
 * Between the CLI's `up` and `infra/local/main.ts`, which it starts by path as `main.ts --state FOLDER [--port N]`.
 * Once every part answers, the stack prints this as one line of JSON on stdout, and nothing else there; logs go to
 * stderr. SIGTERM drains and ends it.
 */
export const LocalStackReady = z.object({
  ready: z.literal(true),
  /** Address of the API, on loopback. */
  endpoint: z.string(),
  /** File with the API's token, readable by its owner only. */
  tokenFile: z.string(),
});
export type LocalStackReady = z.infer<typeof LocalStackReady>;
