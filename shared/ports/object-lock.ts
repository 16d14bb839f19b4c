import { Failure } from "../domain/failure.ts";

/** An object that could not be removed; a legal hold has no date. */
export type LockedObject = {
  readonly key: string;
  /** ISO 8601; undefined for a legal hold alone. */
  readonly until: string | undefined;
  readonly legalHold: boolean;
};

const namedMax = 5;

/** `storage.locked`, which says what is locked until when; `lockedObjectsIn` gives all of it back. */
export function storageLocked(url: string, locked: readonly LockedObject[]): Failure {
  const named = locked.slice(0, namedMax).map(describeLocked).join("; ");
  const more = locked.length > namedMax ? `; and ${locked.length - namedMax} more` : "";
  return new Failure("storage.locked", {
    message: `${url} keeps ${locked.length} objects by Object Lock: ${named}${more}`,
    locked,
  });
}

/** What a failed removal left because it is locked; empty for any other error. */
export function lockedObjectsIn(error: unknown): readonly LockedObject[] {
  const locked = error instanceof Failure ? error.details["locked"] : undefined;
  return Array.isArray(locked) ? locked.filter(isLockedObject) : [];
}

function isLockedObject(value: unknown): value is LockedObject {
  return typeof value === "object" && value !== null && "key" in value && "legalHold" in value;
}

function describeLocked({ key, until, legalHold }: LockedObject): string {
  const reasons = [until && `until ${until}`, legalHold && "by legal hold"].filter(Boolean);
  return `${key} ${reasons.join(" and ") || "for an unknown time"}`;
}
