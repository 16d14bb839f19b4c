import { createHash } from "node:crypto";
import type { Failure } from "@holdfast/shared/domain/failure";
import { corrupt, sameBytes } from "@holdfast/shared/repository/format/bytes";
import { readIndexRows } from "@holdfast/shared/repository/index/read-index";
import { packName } from "@holdfast/shared/repository/pack/pack";
import { readRelocation, relocationFolder } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import {
  isOpen,
  isUnexplained,
  type SessionStates,
  sessionOfRoot,
} from "@holdfast/shared/repository/session/session-state";
import { createSignedNames } from "@holdfast/shared/repository/session/signed-name";
import type { DamageReport } from "./damage-report.ts";
import { isUnreadable } from "./prepare-leaf.ts";

/** What no restore reads, or only when something else is damaged: sessions, condemned lists, relocations, the index. */
type Looking = {
  readonly repository: Repository;
  readonly report: DamageReport;
  readonly signal: AbortSignal;
};

/**
 * Roots that somebody removed, and roots whose session is gone. A root goes only after it was condemned and before its session's end, so an end
 * without its root tells that a point was here.
 */
export async function verifyRoots({ repository, report, signal }: Looking): Promise<SessionStates> {
  const sessions = await repository.sessions.list({ signal });
  const roots = new Set<string>();
  for await (const { key } of repository.store.list("points/", { signal })) {
    const its = sessionOfRoot(key);
    if (its === undefined) continue;
    roots.add(`${its.sessionId}${its.rootEnd}`);
    const session = sessions.get(its.sessionId);
    if (isUnexplained(key, sessions)) {
      report.object(
        key,
        `is no recovery point: objects of its session, which would say so, were removed; put sessions/${its.sessionId}/ back if the storage still has them`,
      );
    } else if (isOpen(session)) {
      report.harmless(
        key,
        "is no recovery point yet: its session is open; if nobody holds it any more, the next collection after its silence makes it one",
      );
    }
  }
  const removed = [...sessions.values()].flatMap(({ sessionId, ends, endNones }) =>
    endNones.length > 0
      ? []
      : [...ends].flatMap(([rootEnd, names]) =>
          roots.has(`${sessionId}${rootEnd}`) ? [] : [{ sessionId, rootEnd, names }],
        ),
  );
  if (removed.length === 0) return sessions;
  const condemned = await repository.sessions.condemned.load({ signal });
  const expected = new Set(Array.from(condemned.roots, (key) => key.slice(-32)));
  const sessionIds = removed.map(({ sessionId }) => sessionId);
  // A collection may have removed root, end and list since: then the end is gone by now.
  const later = await repository.sessions.list({ signal, sessionIds });
  for (const { sessionId, rootEnd, names } of removed) {
    const isExpired = expected.has(`${sessionId}${rootEnd}`);
    if (isExpired || later.get(sessionId)?.ends.has(rootEnd) !== true) continue;
    const key = await rootOfEnd(repository, names, signal);
    report.object(
      key ?? `points/…-${sessionId}${rootEnd}`,
      "is missing: it was removed by something other than Holdfast, and with it a recovery point; put it back if the storage still has it",
    );
  }
  return sessions;
}

async function rootOfEnd(
  repository: Repository,
  names: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  for (const name of names) {
    try {
      return (await repository.sessions.readEnd(name, { signal })).rootKey;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
    }
  }
  return undefined;
}

/** Bodies of sessions' objects only explain what their names say. */
export async function verifySessions(
  { repository, report, signal }: Looking,
  sessions: SessionStates,
): Promise<void> {
  const told = (name: string) => (failure: Failure) =>
    report.harmless(name, `the names of a session's objects say enough: ${failure.message}`);
  for (const { starts, ends } of sessions.values()) {
    for (const name of starts) {
      await tryRead(repository.sessions.readStart(name, { signal }), told(name));
    }
    for (const name of [...ends.values()].flat()) {
      await tryRead(repository.sessions.readEnd(name, { signal }), told(name));
    }
  }
}

/** A damaged list stops writers and collections, which cannot know what it forbids. */
export async function verifyCondemned({ repository, report, signal }: Looking): Promise<void> {
  const names = createSignedNames(repository.secrets, repository.random);
  for await (const { key } of repository.store.list("condemned/", { signal })) {
    if (names.stemOf(key) === undefined) {
      report.harmless(key, "was planted by somebody without a key of this repository: ignored");
      continue;
    }
    await tryRead(repository.objects.get(key, "condemned", { signal }), ({ message }) =>
      report.object(
        key,
        `${message}; backups and collections stop until it is put back or, while nothing else runs, removed by hand`,
      ),
    );
  }
}

const checksumBytes = 32;

/** A wrapping that rotted opens nothing any more; this run was opened by another one. */
export async function verifyKeys({ repository, report, signal }: Looking): Promise<void> {
  for await (const { key } of repository.store.list("keys/", { signal })) {
    const check = async (): Promise<void> => {
      const bytes = await repository.store.get(key, { signal });
      const body = bytes.subarray(0, Math.max(0, bytes.length - checksumBytes));
      const sum = createHash("sha256").update(body).digest();
      if (!sameBytes(sum, bytes.subarray(body.length))) {
        throw corrupt(`${key} does not match its checksum`, { key });
      }
    };
    await tryRead(check(), ({ message }) =>
      report.object(key, `${message}; who has only this key to the repository is locked out`),
    );
  }
}

/** Needed only where their pack is gone or damaged: then they are at fault as well. */
export async function verifyRelocations(
  { repository, report, signal }: Looking,
  isMissed: (packIdHex: string) => boolean,
): Promise<void> {
  for await (const { key } of repository.store.list(`${relocationFolder}/`, { signal })) {
    await tryRead(readRelocation(repository, key, { signal }), ({ message }) => {
      const packId = key.slice(relocationFolder.length + 1).split("-")[0] ?? "";
      if (isMissed(packId)) report.object(key, message);
      else report.harmless(key, `nothing that a restore needs is found by it: ${message}`);
    });
  }
}

/** Only writers use the index: without a segment they store again what it listed. */
export async function verifyIndex(
  { repository, report, signal }: Looking,
  o: {
    readonly isListed: (packId: Uint8Array) => boolean;
    /** Writers would find chunks there that are gone. */
    readonly onMissing: (packId: Uint8Array) => void;
  },
): Promise<void> {
  for await (const { key } of repository.store.list("index/", { signal })) {
    const missing = new Map<string, Uint8Array>();
    const reading = readIndexRows(
      repository.objects,
      key,
      ({ packId }) => {
        if (!o.isListed(packId)) missing.set(packName(packId), Uint8Array.from(packId));
      },
      { signal },
    );
    await tryRead(reading, ({ message }) =>
      report.harmless(key, `no restore needs the index: ${message}`),
    );
    for (const [name, packId] of missing) {
      // Others write meanwhile.
      if ((await repository.store.head(name, { signal })) !== undefined) continue;
      const what = `lists chunks of ${name}, which is not there; no restore needs the index`;
      report.harmless(key, what);
      o.onMissing(packId);
    }
  }
}

async function tryRead(
  reading: Promise<unknown>,
  onDamage: (failure: Failure) => void,
): Promise<void> {
  try {
    await reading;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    onDamage(error);
  }
}
