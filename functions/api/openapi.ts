import { Problem, type Route, routes } from "@holdfast/shared/contracts/api";
import { z } from "zod";

/** The API's description as OpenAPI 3.1, from the same table that answers requests. */
export function createOpenApi(): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [name, route] of Object.entries<Route>(routes)) {
    const path = paths[route.path] ?? {};
    path[route.method.toLowerCase()] = operation(name, route);
    paths[route.path] = path;
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Holdfast",
      version: "1",
      description:
        "Agentless backup of virtual machines. Failures are RFC 9457 problems with a stable `code`.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      schemas: { Problem: jsonSchema(Problem, "output") },
    },
  };
}

function operation(name: string, route: Route): Record<string, unknown> {
  const parameters = [
    ...(route.path.includes("{id}")
      ? [{ name: "id", in: "path", required: true, schema: { type: "string" } }]
      : []),
    ...queryParameters(route),
    ...(route.startsJobs
      ? [
          {
            name: "Idempotency-Key",
            in: "header",
            required: false,
            description: "The same key again answers with the same job.",
            schema: { type: "string", minLength: 1, maxLength: 255 },
          },
        ]
      : []),
  ];
  return {
    operationId: name,
    summary: route.summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { "application/json": { schema: jsonSchema(route.body, "input") } },
          },
        }),
    responses: {
      [route.status]: {
        description: "Done",
        ...(route.response === undefined
          ? {}
          : { content: { "application/json": { schema: jsonSchema(route.response, "output") } } }),
      },
      default: {
        description: "Not done",
        content: {
          "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } },
        },
      },
    },
  };
}

function queryParameters({ query }: Route): readonly Record<string, unknown>[] {
  return Object.entries(query?.shape ?? {}).map(([name, field]) => ({
    name,
    in: "query",
    required: !z.safeParse(field, undefined).success,
    schema: jsonSchema(field, "input"),
  }));
}

function jsonSchema(schema: z.core.$ZodType, io: "input" | "output"): Record<string, unknown> {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}
