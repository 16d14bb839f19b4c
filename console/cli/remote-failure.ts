import { Failure, isFailureCode } from "@holdfast/shared/domain/failure";

/** A failure of another process, made whole again, so that it is shown and counted as if it had happened here. */
export function failureFromRecord(
  record: {
    readonly code: string;
    readonly message: string;
    readonly causes: readonly string[];
  },
  fallback: "internal" | "aws.failed" = "internal",
): Failure {
  let cause: Error | undefined;
  for (const message of record.causes.toReversed()) {
    cause = cause === undefined ? new Error(message) : new Error(message, { cause });
  }
  const code = isFailureCode(record.code) ? record.code : fallback;
  const known = isFailureCode(record.code);
  const message = known ? record.message : `${record.message} (unknown code ${record.code})`;
  return new Failure(code, cause === undefined ? { message } : { message, cause });
}
