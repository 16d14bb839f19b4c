import type { Problem } from "@holdfast/shared/contracts/api";
import {
  Failure,
  type FailureCode,
  failureId,
  toFailureRecord,
} from "@holdfast/shared/domain/failure";

/** An answer of the API, in API Gateway's form. */
export type HttpResponse = {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
};

const statuses: Partial<Record<FailureCode, number>> = {
  "input.invalid": 400,
  "auth.denied": 401,
  "not-found": 404,
  "vm.gone": 404,
  conflict: 409,
  busy: 409,
  "target.refused": 409,
  unsupported: 422,
  internal: 500,
};

/**
 * RFC 9457. A failure's own words are for the caller; what is not a Failure is a defect of ours, whose message
 * may quote anything and is therefore only logged.
 */
export function problemResponse(error: unknown): HttpResponse {
  const failure =
    error instanceof Failure
      ? error
      : new Failure("internal", { message: "the request could not be handled" });
  const status = statusOf(failure);
  const record = toFailureRecord(failure);
  const jobId = failure.details["jobId"];
  const problem: Problem = {
    type: "about:blank",
    title: failureId(failure.code),
    status,
    detail: record.message,
    code: failure.code,
    id: failureId(failure.code),
    advice: failure.kind.advice,
    causes: [...record.causes],
    ...(typeof jobId === "string" ? { jobId } : {}),
  };
  return {
    statusCode: status,
    headers: {
      ...commonHeaders,
      "content-type": "application/problem+json",
      ...(status === 401 ? { "www-authenticate": 'Bearer realm="holdfast"' } : {}),
    },
    body: JSON.stringify(problem),
  };
}

/** Answers are for the caller only and change at any time. */
export const commonHeaders = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
} as const;

function statusOf({ code, details, kind }: Failure): number {
  if (typeof details["httpStatus"] === "number") return details["httpStatus"];
  return statuses[code] ?? (kind.retryable ? 503 : 500);
}
