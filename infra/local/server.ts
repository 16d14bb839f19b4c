import { createHash, randomUUID, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Logger } from "@holdfast/shared/ports/logger";
import { AwsError, unknownOperation } from "./aws-error.ts";
import type { Json } from "./json.ts";
import { parseJson } from "./json.ts";
import type { OperationContext, Operations } from "./operations.ts";

/** DynamoDB's own limit on a request. */
const requestSizeBytesMax = 16 * 1024 * 1024;

/** What is reached without the secret path: it checks a token of its own. */
const openPrefix = "/v1/";

export type Route = (
  request: { readonly message: IncomingMessage; readonly url: URL; readonly body: Buffer },
  response: ServerResponse,
  context: OperationContext,
) => Promise<void>;

export type Routes = {
  /** Operations by service, the part of X-Amz-Target before the dot. */
  readonly services: Readonly<Record<string, Operations>>;
  /** Requests of X-Amz-Target `DynamoDB_…`. */
  readonly dynamodb: (message: IncomingMessage, response: ServerResponse) => void;
  /** Routes by path prefix, first match wins. */
  readonly paths: readonly { readonly prefix: string; readonly route: Route }[];
};

/**
 * The one HTTP server: X-Amz-Target picks the service and operation, the path picks the REST services. Signatures
 * are not checked; instead only loopback may connect, the Host header has to name loopback (a browser that was
 * sent here by DNS rebinding names another host), and all but the API, which has its own token, lies below a secret path:
 * loopback is every local user's, and the parameters hold the keys of the hypervisors.
 */
export function createHttpServer(routes: Routes, secretPath: string, logger: Logger): Server {
  // Longer than the SDK keeps idle connections, so that it is the client who closes them.
  return createServer({ keepAliveTimeout: 75_000 }, (message, response) => {
    const controller = new AbortController();
    response.on("close", () => controller.abort(new Error("caller went away")));
    const isTrusted = takeSecretPath(message, secretPath);
    const endpoint = `${endpointOf(message)}${secretPath}`;
    const context = { endpoint, signal: controller.signal, isTrusted };
    answer(routes, message, response, context, logger).catch((error: unknown) => {
      if (controller.signal.aborted) return;
      sendError(response, error, logger, message);
    });
  });
}

async function answer(
  routes: Routes,
  message: IncomingMessage,
  response: ServerResponse,
  context: OperationContext & { readonly isTrusted: boolean },
  logger: Logger,
): Promise<void> {
  if (!isLoopbackHost(message.headers.host)) {
    throw new AwsError("AccessDeniedException", "The Host header has to name loopback", 403);
  }
  const target = message.headers["x-amz-target"];
  if (!context.isTrusted && (target !== undefined || !message.url?.startsWith(openPrefix))) {
    throw new AwsError(
      "AccessDeniedException",
      "The AWS operations lie below the path of the endpoint that the local stack said when it was ready",
      403,
    );
  }
  if (typeof target === "string" && target.startsWith("DynamoDB_")) {
    return routes.dynamodb(message, response);
  }
  const body = await readBody(message);
  const url = new URL(message.url ?? "/", endpointOf(message));
  if (typeof target === "string") {
    const output = await runOperation(routes, target, body, context);
    logger.debug("operation", { target });
    return sendJson(response, 200, output, "application/x-amz-json-1.0");
  }
  const found = routes.paths.find(({ prefix }) => url.pathname.startsWith(prefix));
  if (found === undefined) throw unknownOperation(`${message.method} ${url.pathname}`);
  await found.route({ message, url, body }, response, context);
}

/** Cuts the secret off the request's path; false when it was not there. */
function takeSecretPath(message: IncomingMessage, secretPath: string): boolean {
  const { url = "/" } = message;
  const start = Buffer.from(url.slice(0, secretPath.length).padEnd(secretPath.length));
  const rest = url.slice(secretPath.length);
  const isThere = timingSafeEqual(sha256(start), sha256(Buffer.from(secretPath)));
  if (!isThere || !(rest === "" || /^[/?]/.test(rest))) return false;
  message.url = rest.startsWith("/") ? rest : `/${rest}`;
  return true;
}

const sha256 = (bytes: Buffer): Buffer => createHash("sha256").update(bytes).digest();

async function runOperation(
  routes: Routes,
  target: string,
  body: Buffer,
  context: OperationContext,
): Promise<Json> {
  const [service = "", name = ""] = target.split(".");
  const operations = Object.hasOwn(routes.services, service) ? routes.services[service] : undefined;
  const run =
    operations !== undefined && Object.hasOwn(operations, name) ? operations[name] : undefined;
  if (run === undefined) throw unknownOperation(target);
  return run(parseBody(body), context);
}

function parseBody(body: Buffer): Json {
  try {
    return body.length === 0 ? {} : parseJson(body.toString("utf8"));
  } catch {
    throw new AwsError("SerializationException", "The request's body is not JSON");
  }
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: Json,
  contentType = "application/json",
): void {
  response.writeHead(status, { "content-type": contentType, "x-amzn-requestid": randomUUID() });
  response.end(JSON.stringify(body));
}

function sendError(
  response: ServerResponse,
  error: unknown,
  logger: Logger,
  message: IncomingMessage,
): void {
  const known =
    error instanceof AwsError
      ? error
      : new AwsError("InternalFailure", error instanceof Error ? error.message : "unknown", 500);
  if (known !== error) {
    const stack = error instanceof Error ? error.stack : String(error);
    logger.error("request failed", { url: message.url, stack });
  }
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.setHeader("x-amzn-errortype", known.name);
  sendJson(response, known.status, { __type: known.name, message: known.message });
}

async function readBody(message: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of message) {
    const bytes = part as Buffer;
    sizeBytes += bytes.length;
    if (sizeBytes > requestSizeBytesMax) {
      throw new AwsError("RequestEntityTooLargeException", "The request is too large", 413);
    }
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}

function isLoopbackHost(host: string | undefined): boolean {
  if (host === undefined) return false;
  const name = host.replace(/:\d+$/, "");
  return name === "localhost" || name === "[::1]" || /^127(\.\d{1,3}){3}$/.test(name);
}

function endpointOf(message: IncomingMessage): string {
  const { localAddress, localPort } = message.socket;
  return `http://${localAddress ?? "127.0.0.1"}:${localPort ?? 0}`;
}
