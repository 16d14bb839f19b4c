import { createHash, timingSafeEqual } from "node:crypto";
import { Failure } from "@holdfast/shared/domain/failure";

/**
 * Accepts the bearer of the one token whose SHA-256 (hex) is given. The hashes are compared in constant time,
 * so that an answer's time tells nothing about the token.
 */
export function authorize(authorization: string | undefined, acceptedSha256: string): void {
  const token = /^Bearer ([\x21-\x7e]{1,4096})$/i.exec(authorization ?? "")?.[1];
  const accepted = Buffer.from(acceptedSha256.trim(), "hex");
  const given = createHash("sha256")
    .update(token ?? "")
    .digest();
  const isEqual = accepted.length === given.length && timingSafeEqual(accepted, given);
  if (token === undefined || !isEqual) {
    throw new Failure("auth.denied", {
      message: "the request carries no valid token; send `Authorization: Bearer TOKEN`",
    });
  }
}
