import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { fingerprint, formatHostKey, judgeHostKey, keyType, parseHostKey } from "./host-key.ts";

// A key and its fingerprint as ssh-keygen 9.2 prints it.
const known =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github.com";
const knownPrint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

function makeKey(type: string): { type: string; blob: Buffer } {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(type.length);
  return { type, blob: Buffer.concat([length, Buffer.from(type), randomBytes(36)]) };
}

test("keys are read from OpenSSH's form, and named by its fingerprint", () => {
  const key = parseHostKey(known);
  expect(fingerprint(key.blob)).toBe(knownPrint);
  expect(formatHostKey(key)).toBe(known.split(" ").slice(0, 2).join(" "));
});

test("what is no key is refused", () => {
  const cases = [
    "",
    "ssh-ed25519",
    "ssh-ed25519 !!!!",
    "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    knownPrint,
    "host ssh-ed25519 AAAA",
  ];
  for (const text of cases) {
    expect(() => parseHostKey(text), text).toThrow(
      expect.objectContaining({ code: "input.invalid" }),
    );
  }
});

test("only the very same blob is accepted; the rest is unknown or changed by its type", () => {
  const [one, other, ecdsa] = ["ssh-ed25519", "ssh-ed25519", "ecdsa-sha2-nistp256"].map(makeKey);
  if (one === undefined || other === undefined || ecdsa === undefined) throw new Error("no keys");
  const judge = (presented: Buffer, pinned: readonly (typeof one)[]) =>
    judgeHostKey({ presented, pinned, host: "h" })?.code;
  expect(judge(one.blob, [other, ecdsa, one])).toBeUndefined();
  expect(judge(one.blob, [other])).toBe("host.key-changed");
  expect(judge(one.blob, [ecdsa])).toBe("host.key-unknown");
  expect(judge(one.blob, [])).toBe("host.key-unknown");
  expect(judge(one.blob.subarray(0, -1), [one])).toBe("host.key-changed");
});

test("any bytes give a type or none, never an error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const type = keyType(Buffer.from(bytes));
      expect(type === undefined || type.length <= 64).toBe(true);
    }),
  );
});
