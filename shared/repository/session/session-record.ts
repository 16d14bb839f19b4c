import { z } from "zod";
import { corrupt } from "../format/bytes.ts";

/** What the objects under `sessions/` hold. Names decide almost everything; these bodies say the rest. */
export const sessionKinds = ["backup", "restore", "copy", "verify", "maintenance"] as const;
export type SessionKind = (typeof sessionKinds)[number];

const rootName = z.string().max(512);

/** The body of `start-…`. */
const SessionStart = z.object({
  v: z.literal(1),
  kind: z.enum(sessionKinds),
  /** Who it is, for people: a job's id, a host and process. */
  holder: z.string().max(256),
  /** Roots that the session builds on or reads; they are not to be pruned before it has ended. */
  pins: z.array(rootName).max(256),
  /** A collector that has seen no sign of life for this long, on its own clock, may fence the session. */
  silenceSeconds: z
    .int()
    .min(1)
    .max(7 * 24 * 3600),
  /** ISO 8601; for display only. */
  startedAt: z.string().max(64),
});
export type SessionStart = z.infer<typeof SessionStart>;

/** The body of `end-…`: the root that its name has the last part of, so that a listing without that root can be doubted. */
const SessionEnd = z.object({ v: z.literal(1), rootKey: rootName });
export type SessionEnd = z.infer<typeof SessionEnd>;

export const encodeStart = (start: SessionStart): Uint8Array => encode(SessionStart.parse(start));
export const encodeEnd = (end: SessionEnd): Uint8Array => encode(SessionEnd.parse(end));
/** The body of all others: their names say everything. */
export const encodeMark = (): Uint8Array => encode({ v: 1 });

export const decodeStart = (bytes: Uint8Array, name: string): SessionStart =>
  decode(SessionStart, bytes, name);
export const decodeEnd = (bytes: Uint8Array, name: string): SessionEnd =>
  decode(SessionEnd, bytes, name);

function encode(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value), "utf8");
}

function decode<T>(schema: z.ZodType<T>, bytes: Uint8Array, name: string): T {
  let raw: unknown;
  try {
    raw = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw corrupt(`${name} is not JSON`, { key: name, cause });
  }
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw corrupt(`${name}: ${parsed.error.message}`, { key: name });
}
