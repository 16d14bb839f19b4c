import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import { sameBytes, toHex } from "@holdfast/shared/repository/format/bytes";
import { configName } from "@holdfast/shared/repository/format/config";
import { withRetention } from "@holdfast/shared/repository/format/retention";
import { inParallel } from "@holdfast/shared/repository/maintenance/in-parallel";
import { parseStoredName } from "@holdfast/shared/repository/maintenance/stored-name";
import { putOwn } from "@holdfast/shared/repository/objects";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isCommitted, sessionOfRoot } from "@holdfast/shared/repository/session/session-state";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { type HeldSession, withReadSession, withSession } from "../hold-session.ts";

/**
 * Copies a repository as it is, object by object, to another store: the same keys, names and bytes. What refers to others comes after them and what makes
 * roots points comes last, so a replica has whole points only, whenever a run is cut off; the next run copies what is missing. Nothing is ever removed
 * or replaced there. What only says how things are in the source (what is damaged, verified, condemned, or under way) is left out.
 */
export type ReplicaOptions = {
  readonly source: Repository;
  /** Used in a way that is right for every store. */
  readonly targetStore: ObjectStore;
  /** Opens the replica with the source's key, once its config is there. */
  readonly openTarget: () => Promise<Repository>;
  readonly holder: string;
  readonly clock: Clock;
  readonly onProgress?: (copied: ReplicaCounts) => void;
  readonly onNoSession?: (message: string) => void;
  readonly signal: AbortSignal;
  readonly logger: Logger;
};

export type ReplicaCounts = { readonly objects: number; readonly bytes: number };

export type ReplicaReport = ReplicaCounts & {
  /** In the source, and now in the replica. */
  readonly points: number;
  /** Were there already. */
  readonly present: number;
  /** They have other sizes there than in the source; not touched. */
  readonly different: readonly string[];
  readonly seconds: number;
};

const copiesInFlight = 8;
/** Bytes that are in memory at a time; or one object, if that is larger. */
const bytesInFlight = 128 * 1024 * 1024;
/** A compaction that goes on moves packs while they are listed, again and again. */
const passesMax = 5;

export async function copyReplica(o: ReplicaOptions): Promise<ReplicaReport> {
  const { source, clock, logger, signal } = o;
  const startedMs = clock.now();
  await prepare(o);
  const target = await o.openTarget();
  const held = { kind: "copy", holder: o.holder, pins: [], clock, logger } as const;
  const inTarget: HeldSession = { ...held, repository: target, signal };
  return await withSession(inTarget, async (session, targetSignal) => {
    if (session.condemned.names.length > 0) {
      throw new Failure("busy", {
        message: `a collection in ${target.store.url} has not come to its end: run \`holdfast repository gc\` there first`,
      });
    }
    const onNoSession = o.onNoSession ?? (() => undefined);
    const reading = { ...held, repository: source, signal: targetSignal, onNoSession };
    return await withReadSession(reading, async (its, bothSignal) => {
      const copied = await copyAll({ ...o, signal: bothSignal }, its);
      return { ...copied, seconds: (clock.now() - startedMs) / 1000 };
    });
  });
}

/** A new replica is an empty repository first. Fails with `input.invalid` for another repository, `repository.exists` for what is none. */
async function prepare(o: ReplicaOptions): Promise<void> {
  const { source, targetStore, signal } = o;
  const config = await source.store.get(configName, { signal });
  if ((await targetStore.head(configName, { signal })) !== undefined) {
    if (sameBytes(await targetStore.get(configName, { signal }), config)) return;
    throw new Failure("input.invalid", {
      message: `${targetStore.url} is another repository, not a replica of ${source.store.url}; without --replica points are copied to it`,
    });
  }
  for await (const { key } of targetStore.list("", { signal })) {
    if (parseStoredName(key).kind === "kept") continue;
    throw new Failure("repository.exists", {
      message: `${targetStore.url} is not empty (${key}) and no replica`,
    });
  }
  const store = withRetention(targetStore, source.lock, o.clock);
  for await (const { key } of source.store.list("keys/", { signal })) {
    await putOwn(store, key, await source.store.get(key, { signal }), { signal });
  }
  await putOwn(store, configName, config, { signal });
}

async function copyAll(
  o: ReplicaOptions,
  reading: Session | undefined,
): Promise<Omit<ReplicaReport, "seconds">> {
  const { source, signal } = o;
  const options = { signal };
  // First what makes points: all that these need is listed after it, and our session keeps it there.
  const rootKeys: string[] = [];
  for await (const { key } of source.store.list("points/", options)) rootKeys.push(key);
  const states = await source.sessions.list(options);
  const condemned = reading?.condemned ?? (await source.sessions.condemned.load(options));
  const points = new Set(
    rootKeys.filter((key) => isCommitted(key, states) && !condemned.roots.has(key)),
  );
  const ofSessions = (of: "starts" | "ends"): ReadonlySet<string> => {
    const names = new Set<string>();
    for (const key of points) {
      const state = states.get(sessionOfRoot(key)?.sessionId ?? "");
      for (const name of (of === "starts"
        ? state?.starts
        : [...(state?.ends.values() ?? [])].flat()) ?? []) {
        names.add(name);
      }
    }
    return names;
  };
  const indexNames = new Set<string>();
  for await (const { key } of source.store.list("index/", options)) indexNames.add(key);

  const copier = createCopier(o);
  const isKind = (kind: string) => (key: string) => parseStoredName(key).kind === kind;
  const isLivePack = (key: string): boolean => {
    const name = parseStoredName(key);
    return name.kind === "pack" && !condemned.packs.has(toHex(name.id));
  };
  for (let pass = 1; pass <= passesMax; pass += 1) {
    const { gone } = await copier.copy("packs/", isLivePack);
    await copier.copy("relocations/", isKind("relocation"));
    // What was compacted away while it was listed lies in newer packs.
    if (gone === 0) break;
  }
  await copier.copy("metadata/", isKind("metadata"));
  await copier.copy("disks/", isKind("disk"));
  await copier.copy("index/", (key) => indexNames.has(key));
  await copier.copy("keys/", () => true);
  const starts = ofSessions("starts");
  const ends = ofSessions("ends");
  await copier.copy("points/", (key) => points.has(key));
  await copier.copy("sessions/", (key) => starts.has(key));
  await copier.copy("sessions/", (key) => ends.has(key));
  return { points: points.size, ...copier.report() };
}

function createCopier(o: ReplicaOptions) {
  const { source, signal } = o;
  const options = { signal };
  const target = withRetention(o.targetStore, source.lock, o.clock);
  const counts = { objects: 0, bytes: 0, present: 0 };
  const different: string[] = [];

  /** Both listings are in byte order. */
  async function* missing(
    prefix: string,
    isWanted: (key: string) => boolean,
  ): AsyncGenerator<ObjectHead> {
    const there = target.list(prefix, options)[Symbol.asyncIterator]();
    let next = await there.next();
    for await (const head of source.store.list(prefix, options)) {
      if (!isWanted(head.key)) continue;
      while (next.done !== true && compareNames(next.value.key, head.key) < 0) {
        next = await there.next();
      }
      if (next.done === true || next.value.key !== head.key) {
        yield head;
        continue;
      }
      counts.present += 1;
      if (next.value.sizeBytes !== head.sizeBytes) different.push(head.key);
    }
  }

  return {
    copy: async (
      prefix: string,
      isWanted: (key: string) => boolean,
    ): Promise<{ readonly gone: number }> => {
      let gone = 0;
      const weigh = ({ sizeBytes }: ObjectHead): number => sizeBytes;
      const limits = { inFlightMax: copiesInFlight, weightMax: bytesInFlight, weigh };
      await inParallel(missing(prefix, isWanted), limits, async ({ key }) => {
        try {
          const bytes = await source.store.get(key, options);
          await putOwn(target, key, bytes, options);
          counts.objects += 1;
          counts.bytes += bytes.length;
          o.onProgress?.(counts);
        } catch (error) {
          if (!isFailure(error, "object.not-found")) throw error;
          gone += 1;
        }
      });
      return { gone };
    },
    report: () => ({ ...counts, different }),
  };
}

/** As stores list: by bytes, which names have as many of as characters. */
function compareNames(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
