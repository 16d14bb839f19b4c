import { decodeDiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { packsOf } from "@holdfast/shared/repository/extent-map/leaf-table";
import type { RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";
import { createObjects } from "@holdfast/shared/repository/objects";
import { packName } from "@holdfast/shared/repository/pack/pack";
import { decodeRoot, type Root } from "@holdfast/shared/repository/recovery-point/point";
import { decodeCondemned } from "@holdfast/shared/repository/session/condemned";
import {
  addName,
  isCommitted,
  isOpen,
  type SessionStates,
  sessionOfRoot,
} from "@holdfast/shared/repository/session/session-state";
import { createSignedNames } from "@holdfast/shared/repository/session/signed-name";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import type { Bucket, BucketChange } from "./bucket.ts";
import type { Counters } from "./counters.ts";
import type { Model } from "./model.ts";

/** Looks at every single change of the bucket, and knows at once when something is lost. */
export type Monitor = {
  readonly see: (change: BucketChange) => void;
  /** A commit was confirmed to its writer. */
  readonly confirmed: (rootKey: string) => void;
  /** A commit was refused to its writer. */
  readonly refused: (sessionId: string) => void;
  /** Roots that are points now. */
  readonly points: () => readonly string[];
  /** A later attempt at the same point counts instead. */
  readonly isReplaced: (rootKey: string) => boolean;
  /** It was begun, and nobody has ended or fenced it. */
  readonly isOpen: (sessionId: string) => boolean;
  /** Roots that are not points but may stay as long as their session's point does: somebody may yet put their end. */
  readonly attemptsBesides: () => readonly string[];
  /** A condemned list with nothing but these names, or the note of one. */
  readonly isListOfNeeded: (key: string, needed: ReadonlySet<string>) => boolean;
  /** Everything that these roots need, themselves included. */
  readonly neededBy: (rootKeys: readonly string[]) => ReadonlySet<string>;
};

export class Violation extends Error {}

export function createMonitor(o: {
  readonly bucket: () => Bucket;
  readonly secrets: RepositorySecrets;
  readonly model: Model;
  readonly counters: Counters;
}): Monitor {
  const { secrets, model, counters } = o;
  const noRandom = (): never => {
    throw new Error("the monitor makes nothing");
  };
  const objects = createObjects({ store: createMemoryObjectStore(), secrets, random: noRandom });
  const names = createSignedNames(secrets, noRandom);
  /** What each root needs; kept after it is gone. */
  const needs = new Map<string, ReadonlySet<string>>();
  const neededFor = new Map<string, Set<string>>();
  const points = new Set<string>();
  const wasPoint = new Set<string>();

  function read(key: string, type: "recovery-point" | "disk-record"): Uint8Array {
    const bytes = o.bucket().get(key);
    if (bytes === undefined) throw new Violation(`a point refers to ${key}, which is not there`);
    return objects.open(key, type, bytes);
  }

  function needsOf(rootKey: string): ReadonlySet<string> {
    const known = needs.get(rootKey);
    if (known !== undefined) return known;
    const root: Root = decodeRoot(read(rootKey, "recovery-point"), rootKey);
    const all = new Set([rootKey, root.metadataKey]);
    for (const { recordKey } of root.disks) {
      all.add(recordKey);
      const record = decodeDiskRecord(read(recordKey, "disk-record"));
      for (const packId of packsOf(record.leaves).values()) all.add(packName(packId));
    }
    for (const key of all) {
      const users = neededFor.get(key) ?? new Set();
      users.add(rootKey);
      neededFor.set(key, users);
    }
    needs.set(rootKey, all);
    return all;
  }

  function isThere(key: string): boolean {
    if (o.bucket().has(key)) return true;
    // A pack that was compacted is somewhere else.
    const packId = /^packs\/..\/([0-9a-f]{32})$/.exec(key)?.[1];
    return packId !== undefined && o.bucket().keys(`relocations/${packId}-`).length > 0;
  }

  function rootsOf(sessionId: string): readonly string[] {
    return o
      .bucket()
      .keys("points/")
      .filter((key) => sessionOfRoot(key)?.sessionId === sessionId);
  }

  function statesOf(sessionId: string): SessionStates {
    const states: Parameters<typeof addName>[0] = new Map();
    for (const key of o.bucket().keys(`sessions/${sessionId}/`)) addName(states, key, names);
    return states;
  }

  function lookAt(sessionId: string): void {
    const states = statesOf(sessionId);
    for (const rootKey of rootsOf(sessionId)) judge(rootKey, sessionId, states);
  }

  function judge(rootKey: string, sessionId: string, states: SessionStates): void {
    const isPoint = isCommitted(rootKey, states);
    if (isPoint === points.has(rootKey)) return;
    if (!isPoint) {
      points.delete(rootKey);
      vanished(rootKey, `its session says so no more`);
      return;
    }
    if (model.refused.has(sessionId)) {
      throw new Violation(`${rootKey} became a point after its commit was refused`);
    }
    points.add(rootKey);
    wasPoint.add(rootKey);
    const missing = [...needsOf(rootKey)].filter((key) => !isThere(key));
    if (missing.length > 0) {
      throw new Violation(`${rootKey} became a point without ${missing.join(", ")}`);
    }
  }

  /** Right for what was to go, and for an attempt that a later one replaced. */
  function vanished(rootKey: string, why: string): void {
    if (model.forgotten.has(rootKey) || isReplaced(rootKey)) return;
    if (model.confirmed.has(rootKey)) {
      throw new Violation(`${rootKey} was a point and is none now: ${why}`);
    }
    counters.count("rare: an unconfirmed point vanished");
  }

  function isReplaced(rootKey: string): boolean {
    const attempt = attemptOf(rootKey);
    return [...wasPoint].some((other) => {
      const its = attemptOf(other);
      return its.point === attempt.point && other !== rootKey && its.fence >= attempt.fence;
    });
  }

  return {
    see: (change) => {
      const { key } = change;
      const sessionId = /^sessions\/([0-9a-f]{16})\//.exec(key)?.[1];
      if (sessionId !== undefined) return lookAt(sessionId);
      if (key.startsWith("points/") && change.type === "put") {
        return lookAt(sessionOfRoot(key)?.sessionId ?? "");
      }
      if (change.type !== "remove") return;
      if (points.delete(key)) vanished(key, "it was removed");
      for (const rootKey of neededFor.get(key) ?? []) {
        if (!points.has(rootKey) || model.forgotten.has(rootKey) || isThere(key)) continue;
        throw new Violation(`${key} was removed, which ${rootKey} needs`);
      }
    },
    confirmed: (rootKey) => {
      if (points.has(rootKey) || model.forgotten.has(rootKey) || isReplaced(rootKey)) return;
      throw new Violation(`${rootKey} was confirmed and is no point`);
    },
    refused: (sessionId) => {
      for (const rootKey of points) {
        if (sessionOfRoot(rootKey)?.sessionId === sessionId) {
          throw new Violation(`${rootKey} is a point, its writer was told that it is none`);
        }
      }
    },
    points: () => [...points],
    isReplaced,
    isOpen: (sessionId) => {
      const state = statesOf(sessionId).get(sessionId);
      return isOpen(state) && state?.fences.length === 0;
    },
    attemptsBesides: () => {
      const sessionIds = new Set([...points].map((rootKey) => sessionOfRoot(rootKey)?.sessionId));
      return o
        .bucket()
        .keys("points/")
        .filter((key) => !points.has(key) && sessionIds.has(sessionOfRoot(key)?.sessionId));
    },
    isListOfNeeded: (key, needed) => {
      if (key.startsWith("condemned/waited-")) {
        const list = `condemned/list-${key.split("-")[1] ?? ""}`;
        return o.bucket().has(list);
      }
      const {
        packs,
        compacting,
        roots,
        objects: names_,
      } = decodeCondemned(objects.open(key, "condemned", o.bucket().get(key) ?? new Uint8Array(0)));
      const named = [...packs, ...compacting].map((id) => packName(Buffer.from(id, "hex")));
      return [...named, ...roots, ...names_].every((name) => needed.has(name));
    },
    neededBy: (rootKeys) => new Set(rootKeys.flatMap((rootKey) => [...needsOf(rootKey)])),
  };
}

function attemptOf(rootKey: string): { readonly point: string; readonly fence: number } {
  const [, point = rootKey, fence = "0"] =
    /^(points\/[^/]+\/[^-]+)-[^/]*-(\d+)-[0-9a-f]{32}$/.exec(rootKey) ?? [];
  return { point, fence: Number(fence) };
}
