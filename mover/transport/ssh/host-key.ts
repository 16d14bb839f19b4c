import { createHash } from "node:crypto";
import { Failure } from "@holdfast/shared/domain/failure";

/** A server's public key. `blob` is what goes over the wire, and what is compared. */
export type HostKey = { readonly type: string; readonly blob: Buffer };

/** From OpenSSH's form, `ssh-ed25519 AAAA… comment`; fails with `input.invalid`. */
export function parseHostKey(text: string): HostKey {
  const [type = "", base64 = ""] = text.trim().split(/\s+/);
  const blob = Buffer.from(base64, "base64");
  if (blob.toString("base64") !== base64 || blob.length < 16 || keyType(blob) !== type) {
    throw new Failure("input.invalid", {
      message: `${JSON.stringify(text.slice(0, 60))} is not a host key in OpenSSH's form (ssh-ed25519 AAAA…)`,
    });
  }
  return { type, blob };
}

export function formatHostKey({ type, blob }: HostKey): string {
  return `${type} ${blob.toString("base64")}`;
}

/** The type that the blob itself names, or nothing if it is malformed. */
export function keyType(blob: Buffer): string | undefined {
  if (blob.length < 4) return undefined;
  const length = blob.readUInt32BE(0);
  if (length === 0 || length > 64 || length > blob.length - 4) return undefined;
  return blob.toString("latin1", 4, 4 + length);
}

/** As `ssh-keygen -lf` prints it. */
export function fingerprint(blob: Buffer): string {
  return `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
}

/** Nothing if the key is pinned, else why it is not accepted. */
export function judgeHostKey(options: {
  readonly presented: Buffer;
  readonly pinned: readonly HostKey[];
  readonly host: string;
}): Failure | undefined {
  const { presented, pinned, host } = options;
  if (pinned.some(({ blob }) => blob.equals(presented))) return undefined;
  const type = keyType(presented) ?? "unknown";
  const print = fingerprint(presented);
  const sameType = pinned.filter((key) => key.type === type);
  if (sameType.length > 0) {
    const expected = sameType.map(({ blob }) => fingerprint(blob));
    return new Failure("host.key-changed", {
      message: `${host} presents the ${type} key ${print}, but ${expected.join(" or ")} is pinned`,
      presented: print,
      pinned: expected,
    });
  }
  return new Failure("host.key-unknown", {
    message: `${host} presents the ${type} key ${print}, and no key of that type is pinned`,
    presented: print,
  });
}
