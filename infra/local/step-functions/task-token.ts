import { randomBytes } from "node:crypto";

/**
 * A task token names its place, so that it is found again after any restart, and carries 128 random bits, so that
 * nobody else can make it. It is compared with the one in the execution's log before it is believed.
 */
export type TaskToken = {
  readonly machine: string;
  readonly execution: string;
  /** The attempt's name in the execution's log. */
  readonly attempt: string;
  readonly secret: string;
};

export const newTaskToken = (place: Omit<TaskToken, "secret">): TaskToken => ({
  ...place,
  secret: randomBytes(16).toString("hex"),
});

export function encodeToken({ machine, execution, attempt, secret }: TaskToken): string {
  return Buffer.from(JSON.stringify([machine, execution, attempt, secret])).toString("base64url");
}

/** Undefined when it is not a token of this service. */
export function decodeToken(text: string): TaskToken | undefined {
  try {
    const parts = JSON.parse(Buffer.from(text, "base64url").toString("utf8")) as unknown;
    if (!Array.isArray(parts) || parts.length !== 4) return undefined;
    const [machine, execution, attempt, secret] = parts as unknown[];
    const isText = (part: unknown): part is string => typeof part === "string";
    return isText(machine) && isText(execution) && isText(attempt) && isText(secret)
      ? { machine, execution, attempt, secret }
      : undefined;
  } catch {
    return undefined;
  }
}
