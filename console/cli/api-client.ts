import type {
  Route,
  RouteBody,
  RouteName,
  RouteQuery,
  RouteResponse,
} from "@holdfast/shared/contracts/api";
import { Problem, routes } from "@holdfast/shared/contracts/api";
import { asFailure, Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { failureFromRecord } from "./remote-failure.ts";

/**
 * The API as typed calls, from the same table of routes that the server runs. Every answer is checked against
 * its schema. Failures: what the API says (its code), `network.unreachable`, `network.timeout`, `protocol.invalid`.
 */
export type ApiClient = {
  readonly endpoint: string;
  call<Name extends RouteName>(
    name: Name,
    request?: ApiRequest<Name>,
  ): Promise<RouteResponse<Name>>;
};

export type ApiRequest<Name extends RouteName> = {
  /** Fills `{id}` of the path. */
  readonly id?: string;
  readonly query?: RouteQuery<Name>;
  readonly body?: RouteBody<Name>;
  /** Makes a call that starts jobs safe to repeat. */
  readonly idempotencyKey?: string;
  readonly signal?: AbortSignal;
};

export type ApiClientOptions = {
  readonly endpoint: string;
  readonly token: string;
  readonly clock: Clock;
  readonly timeoutMs?: number;
  /** Pauses between attempts of calls that may be repeated. */
  readonly retryDelaysMs?: readonly number[];
};

const statusesTemporary: ReadonlySet<number> = new Set([429, 502, 503, 504]);

export function createApiClient(options: ApiClientOptions): ApiClient {
  const endpoint = parseEndpoint(options.endpoint);
  const delays = options.retryDelaysMs ?? [200, 1000];
  return {
    endpoint,
    call: async (name, request = {}) => {
      const route: Route = routes[name];
      const mayRepeat = route.method === "GET" || request.idempotencyKey !== undefined;
      for (let attempt = 0; ; attempt += 1) {
        try {
          return parseAnswer(name, route, await exchange(endpoint, route, request, options));
        } catch (error) {
          const delayMs = delays[attempt];
          const isTemporary = isFailure(error) && error.code.startsWith("network.");
          if (!mayRepeat || !isTemporary || delayMs === undefined) throw error;
          await options.clock.sleep(delayMs, request.signal);
        }
      }
    },
  };
}

function parseEndpoint(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol))
    return text.replace(/\/+$/, "");
  throw new Failure("input.invalid", {
    message: `endpoint ${JSON.stringify(text)} is not a URL; give one such as http://127.0.0.1:8420`,
  });
}

type Answer = { readonly status: number; readonly text: string };

async function exchange(
  endpoint: string,
  route: Route,
  request: ApiRequest<RouteName>,
  { token, timeoutMs = 30_000 }: ApiClientOptions,
): Promise<Answer> {
  const url = new URL(endpoint + route.path.replace("{id}", encodeURIComponent(request.id ?? "")));
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  const timeout = AbortSignal.timeout(timeoutMs);
  const signals = request.signal === undefined ? [timeout] : [timeout, request.signal];
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  try {
    const response = await fetch(url, {
      method: route.method,
      redirect: "error",
      signal: AbortSignal.any(signals),
      headers: {
        accept: "application/json",
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(request.idempotencyKey === undefined
          ? {}
          : { "idempotency-key": request.idempotencyKey }),
      },
      ...(body === undefined ? {} : { body }),
    });
    const text = await response.text();
    if (response.ok) return { status: response.status, text };
    throw failureOf(endpoint, { status: response.status, text });
  } catch (error) {
    if (isFailure(error)) throw error;
    if (request.signal?.aborted) throw request.signal.reason;
    if (timeout.aborted) {
      const message = `${endpoint} did not answer within ${Math.round(timeoutMs / 1000)} seconds`;
      throw new Failure("network.timeout", { message, cause: error });
    }
    throw new Failure("network.unreachable", {
      message: `${endpoint} is not reachable; is it running? \`holdfast up\` starts the local one`,
      cause: error,
    });
  }
}

function failureOf(endpoint: string, answer: Answer): Failure {
  const problem = Problem.safeParse(parseJson(answer.text));
  if (problem.success) {
    const { code, detail, causes, jobId } = problem.data;
    const holder = jobId === undefined || detail.includes(jobId) ? "" : ` (held by job ${jobId})`;
    return failureFromRecord({ code, message: `${detail}${holder}`, causes }, "aws.failed");
  }
  const message = `${endpoint} answered with HTTP status ${answer.status}`;
  if (answer.status === 401 || answer.status === 403)
    return new Failure("auth.denied", { message });
  if (statusesTemporary.has(answer.status)) return new Failure("network.unreachable", { message });
  return new Failure("protocol.invalid", { message });
}

function parseAnswer<Name extends RouteName>(
  name: Name,
  route: Route,
  answer: Answer,
): RouteResponse<Name> {
  if (route.response === undefined) return undefined as RouteResponse<Name>;
  const parsed = route.response.safeParse(parseJson(answer.text));
  if (parsed.success) return parsed.data as RouteResponse<Name>;
  throw asFailure(parsed.error, "protocol.invalid", `${name}: the API's answer is not understood`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The caller's schema refuses it with a message of its own.
    return undefined;
  }
}
