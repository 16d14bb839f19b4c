import { taskErrors } from "@holdfast/shared/contracts/tasks";
import { isFailure, toFailureRecord } from "@holdfast/shared/domain/failure";
import type { MiddlewareObj } from "@middy/core";

/** A stage's failure as the state machines understand it: the name decides between retry and catch, the message is a FailureRecord. */
export function mapFailures(): MiddlewareObj {
  return {
    onError: (request) => {
      request.error = toStageError(request.error);
    },
  };
}

export function toStageError(error: unknown): Error {
  const known = new Set<string>(Object.values(taskErrors));
  if (error instanceof Error && known.has(error.name)) return error;
  const mapped = new Error(JSON.stringify(toFailureRecord(error)), { cause: error });
  mapped.name = stageErrorName(error);
  return mapped;
}

function stageErrorName(error: unknown): string {
  if (isFailure(error, "cancelled")) return taskErrors.cancelled;
  // A VM is held for hours: waiting for it in a stage makes no sense.
  if (isFailure(error) && error.kind.retryable && error.code !== "busy") {
    return taskErrors.retryable;
  }
  return taskErrors.failed;
}
