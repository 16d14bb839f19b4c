import type { z } from "zod";
import { AwsError } from "./aws-error.ts";
import type { Json } from "./json.ts";

/** What an operation may know about the request that it answers. */
export type OperationContext = {
  /** Base of URLs that this endpoint hands out, `http://127.0.0.1:1234`. */
  readonly endpoint: string;
  /** Aborted when the caller went away. */
  readonly signal: AbortSignal;
};

export type Operation = (input: Json, context: OperationContext) => Promise<Json>;

/** Operations by name; what is not in the table does not exist. */
export type Operations = Readonly<Record<string, Operation>>;

/** An operation whose input is checked first; a member that is not supported is refused by its name. */
export function operation<Schema extends z.ZodType>(
  schema: Schema,
  run: (input: z.infer<Schema>, context: OperationContext) => Promise<Json> | Json,
): Operation {
  return async (input, context) => {
    const parsed = schema.safeParse(input);
    if (!parsed.success) {
      const issues = parsed.error.issues.map((issue) =>
        [issue.path.join("."), issue.message].filter((part) => part !== "").join(": "),
      );
      throw new AwsError("ValidationException", issues.join("; "));
    }
    return run(parsed.data, context);
  };
}

/** Timestamps of the AWS JSON protocols: seconds since 1970. */
export const epochSeconds = (timeMs: number): number => timeMs / 1000;
