import { Failure } from "../../domain/failure.ts";
import { sessionOfRoot } from "../session/session-state.ts";

/**
 * What an object's name says: its kind, and whose it is. Only names of exactly these forms are ever removed; everything else in the bucket
 * is not ours to judge.
 */
export type StoredName =
  | { readonly kind: RandomKind; readonly id: Uint8Array; readonly sessionId: string }
  | { readonly kind: "root"; readonly sessionId: string }
  | { readonly kind: "session"; readonly sessionId: string }
  | { readonly kind: "index" }
  | { readonly kind: "relocation"; readonly packId: Uint8Array; readonly sessionId: string }
  | { readonly kind: "condemned" }
  /** What is known to be damaged, and what was verified when: of these, newer ones replace older. */
  | { readonly kind: "note" }
  | { readonly kind: "probe" }
  /** Never garbage: config and keys. */
  | { readonly kind: "kept" }
  | { readonly kind: "unknown" };

/** Objects whose names end in 16 random bytes, of which the first 8 are their session's id. */
export const randomKinds = ["pack", "disk", "metadata", "checkpoint"] as const;
export type RandomKind = (typeof randomKinds)[number];

const folders: Readonly<Record<string, RandomKind>> = {
  disks: "disk",
  metadata: "metadata",
  checkpoints: "checkpoint",
};

export function parseStoredName(key: string): StoredName {
  const slash = key.indexOf("/");
  const folder = slash < 0 ? key : key.slice(0, slash);
  const rest = slash < 0 ? "" : key.slice(slash + 1);
  switch (folder) {
    case "packs":
      return /^([0-9a-f]{2})\/\1[0-9a-f]{30}$/.test(rest)
        ? { kind: "pack", ...idOf(rest.slice(3)) }
        : unknown;
    case "disks":
    case "metadata":
    case "checkpoints": {
      const kind = folders[folder];
      return kind !== undefined && hex16.test(rest) ? { kind, ...idOf(rest) } : unknown;
    }
    case "points": {
      // By the same rule as readers: what may be a point to them is never unknown here.
      const its = sessionOfRoot(key);
      return its === undefined ? unknown : { kind: "root", sessionId: its.sessionId };
    }
    case "sessions": {
      const sessionId = /^([0-9a-f]{16})\/[a-z]+-[0-9a-z-]+$/.exec(rest)?.[1];
      return sessionId === undefined ? unknown : { kind: "session", sessionId };
    }
    case "index":
      return /^[0-9a-f]{32}(-\d{1,2}-[0-9a-f]{1,4})?$/.test(rest) ? { kind: "index" } : unknown;
    case "relocations":
      return /^[0-9a-f]{32}-[0-9a-f]{32}$/.test(rest)
        ? {
            kind: "relocation",
            packId: Buffer.from(rest.slice(0, 32), "hex"),
            sessionId: rest.slice(33, 49),
          }
        : unknown;
    case "condemned":
      return /^[a-z]+-[0-9a-f-]+$/.test(rest) ? { kind: "condemned" } : unknown;
    case "damaged":
    case "verified":
      return hex16.test(rest) ? { kind: "note" } : unknown;
    case "probe":
      return /^[0-9a-f]{24}\/[A-Za-z/-]+$/.test(rest) ? { kind: "probe" } : unknown;
    case "config":
      return slash < 0 ? { kind: "kept" } : unknown;
    case "keys":
      return { kind: "kept" };
    default:
      return unknown;
  }
}

/** The name of an object of a kind; the one door by which an id becomes something that can be removed. */
export function storedName(kind: RandomKind, id: Uint8Array): string {
  const hex = Buffer.from(id.buffer, id.byteOffset, id.length).toString("hex");
  if (!hex16.test(hex)) {
    throw new Failure("input.invalid", { message: `${id.length} bytes are no object's id` });
  }
  switch (kind) {
    case "pack":
      return `packs/${hex.slice(0, 2)}/${hex}`;
    case "disk":
      return `disks/${hex}`;
    case "metadata":
      return `metadata/${hex}`;
    case "checkpoint":
      return `checkpoints/${hex}`;
    default:
      return kind satisfies never;
  }
}

const unknown = { kind: "unknown" } as const;
const hex16 = /^[0-9a-f]{32}$/;

function idOf(hex: string): { readonly id: Uint8Array; readonly sessionId: string } {
  return { id: Buffer.from(hex, "hex"), sessionId: hex.slice(0, 16) };
}
