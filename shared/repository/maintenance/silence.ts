import { createHash } from "node:crypto";
import { z } from "zod";
import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import { isOpen, type SessionState, type SessionStates } from "../session/session-state.ts";
import { createSignedNames } from "../session/signed-name.ts";
import { silenceMarginMs } from "./safety.ts";

/**
 * For how long open sessions have shown no sign of life: on this collector's own clock, within this run by what it slept, and before it by what
 * earlier collections have noted. Only when a fence is tried depends on it; a clock that is wrong may cost a job, never data.
 */
export type SilenceWatch = {
  /** A look at the sessions, now. */
  readonly see: (states: SessionStates) => void;
  /** The collector's own session, which is nobody's to watch. */
  readonly ignore: (sessionId: string) => void;
  readonly slept: (ms: number) => void;
  /** At least this long, in milliseconds. */
  readonly silentMs: (sessionId: string) => number;
  /** Notes for later collections what was seen, and removes the notes that this one began with. */
  readonly save: (options: CallOptions) => Promise<void>;
  /** What earlier collections saw under `probe/`, and when first, in milliseconds since 1970 on their clocks. */
  readonly probesSeen: ReadonlyMap<string, number>;
  readonly seeProbes: (folders: Iterable<string>) => void;
  /** Roots that nothing explains, now. */
  readonly seeRoots: (rootKeys: Iterable<string>) => void;
  /** Since when collections have seen it so: at least this long, in milliseconds. 0 when `seeRoots` was not told of it. */
  readonly rootSeenMs: (rootKey: string) => number;
};

type Since = Pick<Sight, "sinceMs" | "observer">;

type Sight = {
  readonly signs: string;
  /** When these signs were seen first; milliseconds since 1970 on that collector's clock. */
  readonly sinceMs: number;
  readonly observer: string;
};

const Note = z.object({
  v: z.literal(1),
  sessions: z.record(
    z.string().max(64),
    z.object({ signs: z.string().max(64), sinceMs: z.int(), observer: z.string().max(256) }),
  ),
  probes: z.record(z.string().max(64), z.int()),
  roots: z
    .record(z.string().max(512), z.object({ sinceMs: z.int(), observer: z.string().max(256) }))
    .default({}),
});
const stem = "condemned/seen-";
const entriesMax = 10_000;

/** `observer` says whose clock it is: a host's name. Notes that cannot be read are as if they were not there. */
export async function watchSilence(
  repository: Repository,
  observer: string,
  options: CallOptions,
): Promise<SilenceWatch> {
  const { store, objects, secrets, clock } = repository;
  const names = createSignedNames(secrets, repository.random);
  const noted = new Map<string, Sight>();
  const probesSeen = new Map<string, number>();
  const rootsNoted = new Map<string, Since>();
  const read: string[] = [];
  for await (const { key } of store.list(stem, options)) {
    if (names.stemOf(key) !== stem) continue;
    read.push(key);
    const note = await readNote(key);
    for (const [id, sight] of Object.entries(note?.sessions ?? {})) {
      const known = noted.get(id);
      if (known === undefined || sight.sinceMs > known.sinceMs) noted.set(id, sight);
    }
    for (const [folder, atMs] of Object.entries(note?.probes ?? {})) {
      probesSeen.set(folder, Math.min(atMs, probesSeen.get(folder) ?? atMs));
    }
    for (const [rootKey, since] of Object.entries(note?.roots ?? {})) {
      const known = rootsNoted.get(rootKey);
      if (known === undefined || since.sinceMs > known.sinceMs) rootsNoted.set(rootKey, since);
    }
  }
  let own: string | undefined;
  let sleptMs = 0;
  let seen = new Map<string, Sight & { readonly sleptMs: number }>();
  let probes = new Map<string, number>();
  let roots = new Map<string, Since>();

  async function readNote(key: string): Promise<z.infer<typeof Note> | undefined> {
    try {
      const bytes = await objects.get(key, "condemned", options);
      return Note.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
    } catch (error) {
      const isNoNote = error instanceof z.ZodError || error instanceof SyntaxError;
      if (isNoNote || isFailure(error, "object.corrupt") || isFailure(error, "object.not-found")) {
        return undefined;
      }
      throw error;
    }
  }

  return {
    probesSeen,
    ignore: (sessionId) => {
      own = sessionId;
      seen.delete(sessionId);
    },
    see: (states) => {
      const next: typeof seen = new Map();
      for (const state of states.values()) {
        if (!isOpen(state) || state.sessionId === own || next.size >= entriesMax) continue;
        const { sessionId } = state;
        const signs = signsOf(state);
        const before = seen.get(sessionId);
        const earlier = noted.get(sessionId);
        if (before?.signs === signs) next.set(sessionId, before);
        else if (before === undefined && earlier?.signs === signs && earlier.sinceMs <= clock.now())
          next.set(sessionId, { ...earlier, sleptMs });
        else next.set(sessionId, { signs, sinceMs: clock.now(), observer, sleptMs });
      }
      seen = next;
    },
    slept: (ms) => {
      sleptMs += ms;
    },
    silentMs: (sessionId) => {
      const sight = seen.get(sessionId);
      if (sight === undefined) return 0;
      const inThisRun = sleptMs - sight.sleptMs;
      const margin = sight.observer === observer ? 0 : silenceMarginMs;
      const earlier = noted.get(sessionId);
      const isNoted = earlier?.signs === sight.signs && earlier.sinceMs === sight.sinceMs;
      return Math.max(inThisRun, isNoted ? clock.now() - sight.sinceMs - margin : 0);
    },
    seeProbes: (folders) => {
      probes = new Map();
      for (const folder of folders) {
        if (probes.size < entriesMax) probes.set(folder, probesSeen.get(folder) ?? clock.now());
      }
    },
    seeRoots: (rootKeys) => {
      const now = { sinceMs: clock.now(), observer };
      const next: typeof roots = new Map();
      for (const rootKey of rootKeys) {
        if (next.size >= entriesMax) break;
        const noted = roots.get(rootKey) ?? rootsNoted.get(rootKey) ?? now;
        next.set(rootKey, noted.sinceMs <= now.sinceMs ? noted : now);
      }
      roots = next;
    },
    rootSeenMs: (rootKey) => {
      const since = roots.get(rootKey);
      if (since === undefined) return 0;
      const margin = since.observer === observer ? 0 : silenceMarginMs;
      return Math.max(0, clock.now() - since.sinceMs - margin);
    },
    save: async (its) => {
      if (seen.size > 0 || probes.size > 0 || roots.size > 0) {
        const sessions = Object.fromEntries(
          Array.from(seen, ([id, { signs, sinceMs, observer: whose }]) => [
            id,
            { signs, sinceMs, observer: whose },
          ]),
        );
        const note = {
          v: 1,
          sessions,
          probes: Object.fromEntries(probes),
          roots: Object.fromEntries(roots),
        };
        const bytes = Buffer.from(JSON.stringify(note), "utf8");
        await objects.put(names.sign(stem), "condemned", bytes, its);
      }
      if (read.length > 0) await store.remove(read.splice(0), its);
    },
  };
}

/** Changes with every sign of life. */
function signsOf({ starts, renewals }: SessionState): string {
  const hash = createHash("sha256");
  for (const name of [...starts, ...renewals].sort()) hash.update(`${name}\n`);
  return hash.digest("hex").slice(0, 32);
}
