import { bodyBytesMax, type Route, type RouteName, routes } from "@holdfast/shared/contracts/api";
import { Failure } from "@holdfast/shared/domain/failure";
import { z } from "zod";
import { parseInput } from "../middleware/parse-event.ts";

/** The part of API Gateway's HTTP event (payload 2.0) that is used. */
export const HttpEvent = z.object({
  rawPath: z.string(),
  rawQueryString: z.string().default(""),
  headers: z.record(z.string(), z.string().optional()).default({}),
  requestContext: z.object({
    http: z.object({ method: z.string() }),
    /** What a gateway's authorizer found; its presence says that it let the request pass. */
    authorizer: z.record(z.string(), z.unknown()).optional(),
  }),
  body: z.string().nullish(),
  isBase64Encoded: z.boolean().default(false),
});
export type HttpEvent = z.infer<typeof HttpEvent>;

/** A request that fits a route: everything parsed by the route's schemas. */
export type RoutedRequest = {
  readonly name: RouteName;
  readonly route: Route;
  readonly id: string;
  readonly query: unknown;
  readonly body: unknown;
  readonly idempotencyKey: string | undefined;
};

const compiled = Object.entries(routes).map(([name, route]) => ({
  name: name as RouteName,
  route: route as Route,
  segments: route.path.split("/"),
}));
const idLengthMax = 512;

/** Finds the route and parses what it takes. Fails with `not-found` or `input.invalid`. */
export function routeRequest(event: HttpEvent): RoutedRequest {
  const { name, route, id } = findRoute(event.requestContext.http.method, event.rawPath);
  return {
    name,
    route,
    id,
    query: parseInput(route.query ?? z.strictObject({}), readQuery(event), "the query"),
    body: readBody(event, route),
    idempotencyKey: readIdempotencyKey(event),
  };
}

export function header(event: HttpEvent, name: string): string | undefined {
  const found = Object.entries(event.headers).find(([key]) => key.toLowerCase() === name);
  return found?.[1];
}

function findRoute(method: string, path: string) {
  const given = path.split("/");
  const matching = compiled.filter(({ segments }) => {
    if (segments.length !== given.length) return false;
    return segments.every((segment, at) => segment === "{id}" || segment === given[at]);
  });
  const found = matching.find(({ route }) => route.method === method);
  if (found === undefined) {
    throw matching.length === 0
      ? new Failure("not-found", { message: "there is no such path in this API" })
      : new Failure("input.invalid", {
          message: `this path takes ${matching.map(({ route }) => route.method).join(", ")}`,
          httpStatus: 405,
        });
  }
  const at = found.segments.indexOf("{id}");
  return { ...found, id: at < 0 ? "" : decodeId(given[at] ?? "") };
}

function decodeId(text: string): string {
  try {
    const id = decodeURIComponent(text);
    if (id.length > 0 && id.length <= idLengthMax) return id;
  } catch {
    // Falls through: said below.
  }
  throw new Failure("input.invalid", { message: "the id in the path is not valid" });
}

function readQuery({ rawQueryString }: HttpEvent): Record<string, string> {
  const query = new Map<string, string>();
  for (const [key, value] of new URLSearchParams(rawQueryString)) {
    if (query.has(key)) {
      throw new Failure("input.invalid", { message: "a query parameter is given twice" });
    }
    query.set(key, value);
  }
  return Object.fromEntries(query);
}

function readBody(event: HttpEvent, route: Route): unknown {
  const text = event.body ?? "";
  const bytes = event.isBase64Encoded ? Buffer.from(text, "base64") : Buffer.from(text);
  if (bytes.byteLength > bodyBytesMax) {
    throw new Failure("input.invalid", {
      message: `the body has more than ${bodyBytesMax} bytes`,
      httpStatus: 413,
    });
  }
  const isEmpty = bytes.toString().trim() === "";
  if (route.body === undefined) {
    if (isEmpty || bytes.toString().trim() === "{}") return undefined;
    throw new Failure("input.invalid", { message: "this request takes no body" });
  }
  if (isEmpty) throw new Failure("input.invalid", { message: "the request needs a JSON body" });
  return parseInput(route.body, parseJson(bytes), "the body");
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's own message quotes the body, which may hold a secret.
    throw new Failure("input.invalid", { message: "the body is not JSON in UTF-8" });
  }
}

function readIdempotencyKey(event: HttpEvent): string | undefined {
  const key = header(event, "idempotency-key");
  if (key === undefined || /^[\x21-\x7e]{1,255}$/.test(key)) return key;
  throw new Failure("input.invalid", {
    message: "the Idempotency-Key must have 1 to 255 visible ASCII characters",
  });
}
