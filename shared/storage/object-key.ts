import { Failure } from "@holdfast/shared/domain/failure";
import type { ByteRange } from "@holdfast/shared/ports/object-store";

/** Names that a store may use for its own unfinished files; never a key's segment. */
export const temporaryNamePrefix = ".tmp-";
const keyLengthMax = 512;
/** What file systems take for one name, in bytes. */
const segmentLengthMax = 255;

/** Accepts keys that every store can hold: nothing that leaves the store's root or hides from its listing. */
export function checkObjectKey(key: string): void {
  const problem = keyProblem(key);
  if (problem !== undefined) throw invalid("object key", key, problem);
}

export function isObjectKey(key: string): boolean {
  return keyProblem(key) === undefined;
}

/** A prefix is the beginning of a key; empty means everything. */
export function checkObjectPrefix(prefix: string): void {
  const whole = prefix.lastIndexOf("/");
  const problem =
    /^[A-Za-z0-9._/-]*$/.test(prefix) && prefix.length <= keyLengthMax
      ? whole < 0
        ? undefined
        : keyProblem(prefix.slice(0, whole))
      : "use A-Z, a-z, 0-9, '.', '_', '-' and '/', at most 512 characters";
  if (problem !== undefined) throw invalid("object prefix", prefix, problem);
}

export function checkByteRange({ offset, length }: ByteRange): void {
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0) {
    return;
  }
  throw new Failure("input.invalid", {
    message: `byte range (offset ${offset}, length ${length}) is not valid: use whole numbers from 0`,
  });
}

/** Byte order; keys are ASCII, so the order of UTF-16 units is the order of bytes. */
export function compareKeys(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function keyProblem(key: string): string | undefined {
  if (key === "") return "it is empty";
  if (!/^[A-Za-z0-9._/-]+$/.test(key) || key.length > keyLengthMax) {
    return "use A-Z, a-z, 0-9, '.', '_', '-' and '/', at most 512 characters";
  }
  for (const segment of key.split("/")) {
    if (segment === "" || segment === "." || segment === "..") {
      return "no part between slashes may be empty, '.' or '..'";
    }
    if (segment.length > segmentLengthMax)
      return "no part between slashes may exceed 255 characters";
    if (segment.startsWith(temporaryNamePrefix))
      return `no part may start with ${temporaryNamePrefix}`;
  }
  return undefined;
}

function invalid(kind: string, text: string, problem: string): Failure {
  return new Failure("input.invalid", {
    message: `${kind} ${JSON.stringify(text.slice(0, 100))} is not valid: ${problem}`,
  });
}
