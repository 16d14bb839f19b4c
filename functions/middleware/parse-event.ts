import { Failure } from "@holdfast/shared/domain/failure";
import type { MiddlewareObj } from "@middy/core";
import type { z } from "zod";

/** Replaces the event by what the schema makes of it; `input.invalid` says where it doesn't fit, never the values. */
export function parseEvent<Event>(schema: z.ZodType<Event>): MiddlewareObj<Event, unknown> {
  return {
    before: (request) => {
      request.event = parseInput(schema, request.event, "the event");
    },
  };
}

export function parseInput<T>(schema: z.ZodType<T>, input: unknown, what: string): T {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues
    .slice(0, 5)
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join(".")}: ${message}`));
  throw new Failure("input.invalid", { message: `${what} is not valid: ${problems.join("; ")}` });
}
