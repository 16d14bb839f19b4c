import { Failure } from "@holdfast/shared/domain/failure";

/** What the system said, in the port's words. Aborts and Failures pass through. */
export function asStorageFailure(
  error: unknown,
  context: {
    readonly key: string;
    readonly action: string;
    readonly missing?: "object.not-found" | "storage.unreachable";
  },
): unknown {
  const code = errorCode(error);
  if (code === "" || !(error instanceof Error) || error instanceof Failure) return error;
  const { key, action, missing = "object.not-found" } = context;
  const details = { key, cause: error };
  // A file where the key has a folder: nothing can be there, and nothing can be put there.
  if (code === "ENOTDIR" && action !== "write") {
    return new Failure(missing, { message: `${key} does not exist: ${error.message}`, ...details });
  }
  switch (code) {
    case "ENOENT":
      return action === "write"
        ? new Failure("storage.unreachable", {
            message: `cannot write ${key}: ${error.message}`,
            ...details,
          })
        : new Failure(missing, { message: `${key} does not exist: ${error.message}`, ...details });
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new Failure("storage.no-space", {
        message: `no space to ${action} ${key}: ${error.message}`,
        ...details,
      });
    case "ENOTDIR":
    case "EACCES":
    case "EPERM":
    case "EROFS":
    case "EISDIR":
    case "ELOOP":
    case "ENAMETOOLONG":
      return new Failure("storage.refused", {
        message: `not allowed to ${action} ${key}: ${error.message}`,
        ...details,
      });
    default:
      return /^E[A-Z0-9]+$/.test(code)
        ? new Failure("storage.unreachable", {
            message: `cannot ${action} ${key}: ${error.message}`,
            ...details,
          })
        : error;
  }
}

/** The system's code of an error, `ENOENT`; empty for any other error. */
export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : "";
}
