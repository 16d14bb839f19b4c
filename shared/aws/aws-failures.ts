import { Failure } from "../domain/failure.ts";

const refused = new Set([
  "AccessDeniedException",
  "AccessDenied",
  "UnrecognizedClientException",
  "InvalidSignatureException",
  "ExpiredTokenException",
]);

/** The name by which the SDK tells its exceptions apart. */
export function awsErrorName(error: unknown): string {
  return error instanceof Error ? error.name : "Unknown";
}

/**
 * What an AWS call's exception means to us: `auth.denied` for a refused credential, `internal` for a request that
 * AWS calls malformed (our defect, a repetition cannot help), `cancelled` for our own abort, else `aws.failed`.
 */
export function awsFailure(error: unknown, doing: string): Failure {
  if (error instanceof Failure) return error;
  const name = awsErrorName(error);
  const text = error instanceof Error ? error.message : String(error);
  const message = `${doing}: ${name}: ${text}`;
  if (name === "AbortError") return new Failure("cancelled", { message: doing, cause: error });
  if (refused.has(name)) return new Failure("auth.denied", { message, cause: error });
  if (name === "ValidationException") return new Failure("internal", { message, cause: error });
  return new Failure("aws.failed", { message, cause: error });
}

/** Runs one call; its exception becomes a Failure. */
export async function callAws<T>(doing: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw awsFailure(error, doing);
  }
}
