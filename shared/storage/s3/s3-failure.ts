import { Failure, type FailureCode } from "@holdfast/shared/domain/failure";

/** What the SDK and the store said about one failed request. */
export type S3Problem = {
  readonly name: string;
  readonly message: string;
  /** Undefined when no answer came. */
  readonly status: number | undefined;
  readonly attempts: number;
};

export function s3Problem(error: unknown): S3Problem | undefined {
  if (!(error instanceof Error)) return undefined;
  const metadata: unknown = "$metadata" in error ? error.$metadata : undefined;
  return {
    name: "Code" in error && typeof error.Code === "string" ? error.Code : error.name,
    message: error.message,
    status: numberIn(metadata, "httpStatusCode"),
    attempts: numberIn(metadata, "attempts") ?? 1,
  };
}

/**
 * Turns an error of the SDK into the port's words. An abort is the signal's reason; what comes neither from the store
 * nor from the network is a defect and passes through as it is.
 */
export function asS3Failure(
  error: unknown,
  context: {
    readonly url: string;
    readonly action: string;
    readonly signal?: AbortSignal | undefined;
  },
): unknown {
  if (error instanceof Failure) return error;
  if (context.signal?.aborted === true) return context.signal.reason;
  const problem = s3Problem(error);
  if (problem === undefined) return error;
  const missing = missingSetting(problem);
  if (missing !== undefined) {
    const message = `cannot ${context.action} ${context.url}: ${missing}`;
    return new Failure("input.invalid", { message, cause: error, url: context.url });
  }
  const code = codeOf(problem, error);
  if (code === undefined) return error;
  const { name, message, status } = problem;
  const said = [status, name, message === name ? undefined : message].filter(Boolean).join(" ");
  return new Failure(code, {
    message: `cannot ${context.action} ${context.url}: ${said}`,
    cause: error,
    url: context.url,
    error: name,
    ...(status === undefined ? {} : { status }),
  });
}

/** What the SDK lacks to make a request at all; its own words do not say where to set it. */
function missingSetting({ name, message }: S3Problem): string | undefined {
  if (name === "CredentialsProviderError") {
    return `no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (${message})`;
  }
  return message === "Region is missing"
    ? "no region is known; set AWS_REGION, or AWS_ENDPOINT_URL_S3 for a store that is not AWS"
    : undefined;
}

function codeOf({ name, status }: S3Problem, error: unknown): FailureCode | undefined {
  const byName = codesByName[name];
  if (byName !== undefined) return byName;
  if (status === undefined) return isNetworkError(error) ? "storage.unreachable" : undefined;
  // An answer that looked like success and could not be understood says nothing about what happened.
  if (status < 300) return "storage.unreachable";
  switch (status) {
    case 404:
      return "object.not-found";
    case 412:
      return "object.exists";
    case 416:
      return "object.corrupt";
    case 507:
      return "storage.no-space";
    case 408:
    case 409:
    case 425:
    case 429:
      return "storage.unreachable";
    default:
      return status >= 500 && status !== 501 ? "storage.unreachable" : "storage.refused";
  }
}

const codesByName: Readonly<Record<string, FailureCode | undefined>> = {
  NoSuchBucket: "storage.refused",
  NoSuchKey: "object.not-found",
  PreconditionFailed: "object.exists",
  InvalidRange: "object.corrupt",
  QuotaExceeded: "storage.no-space",
  XMinioStorageFull: "storage.no-space",
  XMinioAdminBucketQuotaExceeded: "storage.no-space",
  // The bytes were damaged on the way or the request was too slow: sending them again is right.
  BadDigest: "storage.unreachable",
  XAmzContentSHA256Mismatch: "storage.unreachable",
  IncompleteBody: "storage.unreachable",
  RequestTimeout: "storage.unreachable",
  RequestTimeTooSkewed: "storage.refused",
};

/** The system's codes (ECONNRESET, ENOTFOUND, …), OpenSSL's for TLS, and the SDK's own time limits. */
function isNetworkError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === "TimeoutError" || error.name === "NetworkingError") return true;
  const code = "code" in error ? error.code : undefined;
  return (
    typeof code === "string" &&
    (/^E[A-Z0-9]+$/.test(code) ||
      /^(ERR_SSL|ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HPE_)/.test(code))
  );
}

function numberIn(value: unknown, name: string): number | undefined {
  if (typeof value !== "object" || value === null || !(name in value)) return undefined;
  const found: unknown = Reflect.get(value, name);
  return typeof found === "number" ? found : undefined;
}
