import { Failure } from "@holdfast/shared/domain/failure";

/** A connection that ended by itself. A TLS alert (a certificate refused, say) is no matter for a retry. */
export function connectionLost(peer: string, cause: Error | undefined, when = ""): Failure {
  if (cause instanceof Failure) return cause;
  const code = cause !== undefined && "code" in cause ? String(cause.code) : "";
  const reason = cause === undefined ? "" : `: ${cause.message}`;
  if (code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS")) {
    return new Failure("auth.denied", { message: `${peer} ended TLS${when}${reason}`, cause });
  }
  return new Failure("network.unreachable", {
    message: `${peer} closed the connection${when}${reason}`,
    cause,
  });
}
