/**
 * The API from event to answer. What always holds: nothing is looked at before the caller is authorised; a request
 * that reaches an operation has passed its route's schemas; every answer is JSON, every failure a problem;
 * neither bodies nor headers are logged.
 */
import type { RouteName } from "@holdfast/shared/contracts/api";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import { authorize } from "../middleware/authorize.ts";
import type { ApiRequest, Operations } from "./operations.ts";
import { commonHeaders, type HttpResponse, problemResponse } from "./problem.ts";
import { HttpEvent, header, type RoutedRequest, routeRequest } from "./route-request.ts";

export type ApiOptions = {
  readonly operations: Operations;
  /** The accepted token's SHA-256, where no gateway authorises. */
  readonly tokenSha256: (() => Promise<string>) | undefined;
  readonly logger: Logger;
};

export async function handleRequest(input: unknown, options: ApiOptions): Promise<HttpResponse> {
  const { logger, operations } = options;
  let request: RoutedRequest | undefined;
  try {
    const event = readEvent(input);
    await mustBeAuthorized(event, options);
    request = routeRequest(event);
    const result = await runOperation(request, operations);
    logger.info("request", { route: request.name, status: request.route.status });
    return respond(request, result);
  } catch (error) {
    const response = problemResponse(error);
    logger[response.statusCode >= 500 ? "error" : "info"]("request", {
      route: request?.name,
      status: response.statusCode,
      code: isFailure(error) ? error.code : "internal",
      ...(response.statusCode >= 500 ? { error: describeDefect(error) } : {}),
    });
    return response;
  }
}

function readEvent(input: unknown): HttpEvent {
  const parsed = HttpEvent.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new Failure("input.invalid", {
    message: "this is not an HTTP event of payload version 2.0",
  });
}

async function mustBeAuthorized(event: HttpEvent, { tokenSha256 }: ApiOptions): Promise<void> {
  if (tokenSha256 !== undefined) {
    authorize(header(event, "authorization"), await tokenSha256());
  } else if (event.requestContext.authorizer === undefined) {
    throw new Failure("auth.denied", { message: "no gateway has authorised this request" });
  }
}

/** The table's types hold each operation against its route; here the pair is taken apart by name and must be trusted. */
function runOperation(request: RoutedRequest, operations: Operations): Promise<unknown> {
  const operation = operations[request.name] as (parsed: ApiRequest<RouteName>) => Promise<unknown>;
  return operation(request as ApiRequest<RouteName>);
}

function respond({ route }: RoutedRequest, result: unknown): HttpResponse {
  if (route.response === undefined) return { statusCode: route.status, headers: commonHeaders };
  const location = jobLocation(route.status, result);
  return {
    statusCode: route.status,
    headers: {
      ...commonHeaders,
      "content-type": "application/json",
      ...(location === undefined ? {} : { location }),
    },
    body: JSON.stringify(result),
  };
}

function jobLocation(status: number, result: unknown): string | undefined {
  if (status !== 202 || typeof result !== "object" || result === null) return undefined;
  return "jobId" in result ? `/v1/jobs/${String(result.jobId)}` : undefined;
}

/** Name and place of a defect, not its message: that may quote input. */
function describeDefect(error: unknown): string {
  if (isFailure(error)) return error.message;
  if (!(error instanceof Error)) return typeof error;
  return [error.name, ...(error.stack ?? "").split("\n    at ").slice(1, 6)].join(" < ");
}
