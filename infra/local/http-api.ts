import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import type { Functions } from "./functions/runtime.ts";
import type { Json, JsonObject } from "./json.ts";
import { isJsonObject } from "./json.ts";
import { account, region } from "./names.ts";
import { type Route, sendJson } from "./server.ts";

/** API Gateway's HTTP API with one `$default` route to the Api function, payload format 2.0. The function authorises. */
export function createHttpApi(functions: Functions, functionName: string): Route {
  return async ({ message, url, body }, response) => {
    const { method = "GET", headers } = message;
    const event = toEvent({ method, headers, url, body, sourceIp: "127.0.0.1" });
    let result: Json;
    try {
      result = await functions.invoke(functionName, event);
    } catch {
      // The cause is in the log; as API Gateway does, the caller hears nothing of it.
      sendJson(response, 500, { message: "Internal Server Error" });
      return;
    }
    sendResult(response, result);
  };
}

function toEvent(request: {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly url: URL;
  readonly body: Buffer;
  readonly sourceIp: string;
}): JsonObject {
  const { method, headers, url, body } = request;
  const { cookie, ...others } = headers;
  const texts = Object.entries(others).map(([name, value]) => [
    name,
    Array.isArray(value) ? value.join(",") : (value ?? ""),
  ]);
  const query: Record<string, string> = {};
  for (const [name, value] of url.searchParams) {
    query[name] = Object.hasOwn(query, name) ? `${query[name]},${value}` : value;
  }
  const contentType = headers["content-type"] ?? "application/json";
  const isText = /^(text\/|application\/(json|[a-z.+-]*\+json|xml|x-www-form-urlencoded))/.test(
    contentType,
  );
  const now = new Date();
  return {
    version: "2.0",
    routeKey: "$default",
    rawPath: url.pathname,
    rawQueryString: url.search.slice(1),
    ...(cookie === undefined ? {} : { cookies: cookie.split("; ") }),
    headers: Object.fromEntries(texts) as Record<string, string>,
    ...(url.search === "" ? {} : { queryStringParameters: query }),
    requestContext: {
      accountId: account,
      apiId: "local",
      domainName: headers.host ?? `local.${region}`,
      domainPrefix: "local",
      http: {
        method,
        path: url.pathname,
        protocol: "HTTP/1.1",
        sourceIp: request.sourceIp,
        userAgent: headers["user-agent"] ?? "",
      },
      requestId: randomUUID(),
      routeKey: "$default",
      stage: "$default",
      time: now.toISOString(),
      timeEpoch: now.getTime(),
    },
    ...(body.length === 0 ? {} : { body: body.toString(isText ? "utf8" : "base64") }),
    isBase64Encoded: body.length > 0 && !isText,
  };
}

function sendResult(response: ServerResponse, result: Json): void {
  if (!isJsonObject(result) || result["statusCode"] === undefined) {
    sendJson(response, 200, result);
    return;
  }
  const { statusCode, headers, cookies, body, isBase64Encoded } = result;
  response.statusCode = Number(statusCode);
  response.setHeader("content-type", "text/plain;charset=UTF-8");
  if (isJsonObject(headers)) {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, String(value));
  }
  if (Array.isArray(cookies)) response.setHeader("set-cookie", cookies.map(String));
  const text = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
  response.end(isBase64Encoded === true ? Buffer.from(text, "base64") : text);
}
