import middy from "@middy/core";
import { logContext } from "../middleware/log-context.ts";
import * as wiring from "../wiring.ts";
import { handleRequest } from "./api.ts";
import { createOperations } from "./operations.ts";

/** How long a token's hash is believed before it is read again: a revoked token works no longer than this. */
const tokenCachedMs = 60_000;

const cache = wiring.once((): { sha256: string; until: number } => ({ sha256: "", until: 0 }));

async function tokenSha256(parameter: string): Promise<string> {
  const cached = cache();
  if (cached.until < wiring.clock.now()) {
    cached.sha256 = await wiring.parameters().getSecret(parameter);
    cached.until = wiring.clock.now() + tokenCachedMs;
  }
  return cached.sha256;
}

export const handler = middy<unknown>()
  .use(logContext("api", wiring.logger))
  .handler((event: unknown) => {
    const { API_TOKEN_PARAMETER, PARAMETER_PREFIX } = wiring.settings();
    return handleRequest(event, {
      operations: createOperations({
        ...wiring.startServices(),
        parameters: wiring.parameters(),
        schedules: wiring.schedules,
        parameterPrefix: PARAMETER_PREFIX,
      }),
      tokenSha256:
        API_TOKEN_PARAMETER === undefined ? undefined : () => tokenSha256(API_TOKEN_PARAMETER),
      logger: wiring.logger(),
    });
  });
