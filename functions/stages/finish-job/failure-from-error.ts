import { taskErrors } from "@holdfast/shared/contracts/tasks";
import { type FailureRecord, isFailureCode } from "@holdfast/shared/domain/failure";
import { z } from "zod";

/** What a state machine's Catch gives. */
export const CaughtError = z.object({ Error: z.string().optional(), Cause: z.string().optional() });
export type CaughtError = z.infer<typeof CaughtError>;

const Recorded = z.object({
  code: z.string(),
  message: z.string(),
  causes: z.array(z.string()).default([]),
});
const LambdaCause = z.object({ errorMessage: z.string() });
const rawLengthMax = 4000;

/**
 * The reason of a failed stage: the mover's or function's own record out of `Cause`, which is JSON of the record,
 * or Lambda's envelope whose `errorMessage` is. Anything else is kept as text, never thrown away.
 */
export function failureFromError(error: CaughtError): FailureRecord {
  const cause = error.Cause ?? "";
  const message = LambdaCause.safeParse(parseJson(cause)).data?.errorMessage ?? cause;
  const recorded = Recorded.safeParse(parseJson(message)).data;
  if (recorded !== undefined) {
    if (isFailureCode(recorded.code)) return { ...recorded, code: recorded.code };
    return { ...recorded, code: "internal", message: `${recorded.code}: ${recorded.message}` };
  }
  const text = [error.Error, message].filter(Boolean).join(": ").slice(0, rawLengthMax);
  if (error.Error === "States.HeartbeatTimeout" || error.Error === "States.Timeout") {
    return {
      code: "mover.lost",
      message: `no mover or function answered within the stage's limit (${text})`,
      causes: [],
    };
  }
  const code = error.Error === taskErrors.cancelled ? "cancelled" : "internal";
  return { code, message: text || "the workflow gave no reason", causes: [] };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the text itself is the reason.
    return undefined;
  }
}
