import type { Logger } from "@holdfast/shared/ports/logger";
import type { ObjectHead } from "@holdfast/shared/ports/object-store";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import { type ChunkIndex, createChunkIndex } from "@holdfast/shared/repository/index/chunk-index";
import type { IndexedPack } from "@holdfast/shared/repository/index/index-segment";
import { parseShardName } from "@holdfast/shared/repository/index/index-shard";
import { chunksIn, readIndexRows } from "@holdfast/shared/repository/index/read-index";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isOpen, sessionOfId } from "@holdfast/shared/repository/session/session-state";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { createNeighbourLoader } from "./neighbour-loader.ts";
import { isUnreadable } from "./prepare-leaf.ts";

/** The chunk index as one session may use it. */
export type SessionIndex = {
  readonly index: ChunkIndex;
  /** Tells that these packs are in an index segment now that others will load, too. */
  readonly onIndexSegment: (name: string, packs: readonly IndexedPack[]) => void;
  /** To be called while chunks are looked up: lets a sparse index load what is around the chunks that were found. */
  readonly prefetch: () => void;
};

/**
 * Keeps a repository's index in memory, for all transfers of a process. It is brought up to date for each session, after the session has begun:
 * what came since is added; and when something that it knows may be gone, it is loaded anew. Older sessions keep theirs.
 */
export type ChunkIndexLoader = {
  readonly load: (session: Session, signal: AbortSignal) => Promise<SessionIndex>;
};

type Loaded = {
  readonly index: ChunkIndex;
  /** Objects of the stored index that were read, or written by transfers of this process. */
  readonly names: Set<string>;
  /** The condemned lists whose packs were left out. */
  readonly condemned: ReadonlySet<string>;
  /** The records of damage whose places were left out. */
  readonly damage: ReadonlySet<string>;
  /** Packs that transfers of this process have added and that no segment names yet, in hexadecimal. */
  readonly unwritten: Set<string>;
};

const objectsInFlight = 8;

export function createChunkIndexLoader(
  repository: Repository,
  {
    logger,
    indexBytesMax,
  }: {
    readonly logger: Logger;
    /** Memory for the index; beyond it the index is sparse. Default: see `createChunkIndex`. */
    readonly indexBytesMax?: number | undefined;
  },
): ChunkIndexLoader {
  let loaded: Loaded | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  async function load(session: Session, signal: AbortSignal): Promise<SessionIndex> {
    const listing: ObjectHead[] = [];
    for await (const head of repository.store.list("index/", { signal })) listing.push(head);
    const reason = loaded && (await staleReason(repository, loaded, session, listing, signal));
    if (reason !== undefined) logger.info("chunk index is loaded anew", { reason });
    const isKept = loaded !== undefined && reason === undefined;
    const now = isKept && loaded !== undefined ? loaded : empty(session, listing, indexBytesMax);
    await addObjects(repository, now, session, listing, { logger, signal });
    loaded = now;
    const isUsable = usableIn(session);
    const { prefetch } = createNeighbourLoader({
      repository,
      index: now.index,
      isUsable,
      logger,
      signal,
    });
    return {
      prefetch,
      index: {
        ...now.index,
        add: (pack, records) => {
          now.unwritten.add(toHex(pack.packId));
          now.index.add(pack, records);
        },
      },
      onIndexSegment: (name, packs) => {
        now.names.add(name);
        for (const { packId } of packs) now.unwritten.delete(toHex(packId));
      },
    };
  }

  return {
    // One after the other: two sessions that begin at once share what one of them loads.
    load: (session, signal) => {
      const mine = turn.then(() => load(session, signal));
      turn = mine.catch(() => undefined);
      return mine;
    },
  };
}

/** What is not condemned, nor known to be damaged. */
function usableIn(session: Session): (packId: Uint8Array, offset: number) => boolean {
  const { packs, compacting } = session.condemned;
  const condemned = packs.union(compacting);
  return (packId, offset) =>
    (condemned.size === 0 || !condemned.has(toHex(packId))) &&
    !session.damage.places.has(packId, offset);
}

function empty(
  session: Session,
  listing: readonly ObjectHead[],
  indexBytesMax: number | undefined,
): Loaded {
  const chunksExpected = listing.reduce((sum, head) => sum + chunksIn(head), 0);
  return {
    index: createChunkIndex({
      chunksExpected,
      ...(indexBytesMax !== undefined && { bytesMax: indexBytesMax }),
    }),
    names: new Set(),
    condemned: new Set(session.condemned.names),
    damage: new Set(session.damage.recordNames),
    unwritten: new Set(),
  };
}

/** Why the index may name packs that are gone or about to go; undefined when it doesn't. */
async function staleReason(
  repository: Repository,
  loaded: Loaded,
  session: Session,
  listing: readonly ObjectHead[],
  signal: AbortSignal,
): Promise<string | undefined> {
  const there = new Set(listing.map(({ key }) => key));
  // Collection replaces what names packs that it removes, before it removes them.
  const gone = [...loaded.names].find((name) => !there.has(name));
  if (gone !== undefined) return `${gone} was replaced`;
  const condemned = session.condemned.names.find((name) => !loaded.condemned.has(name));
  if (condemned !== undefined) return `${condemned} is new`;
  const damage = session.damage.recordNames.find((name) => !loaded.damage.has(name));
  if (damage !== undefined) return `damage was found (${damage})`;
  const writers = new Set([...loaded.unwritten].map(sessionOfId));
  writers.delete(session.sessionId);
  const sessionIds = [...writers];
  const states = await repository.sessions.list({ sessionIds, signal });
  const ended = sessionIds.find((id) => !isOpen(states.get(id)));
  return ended === undefined ? undefined : `session ${ended} has ended without an index segment`;
}

/** An object that cannot be read is logged and left out: its chunks are stored again when they turn up. */
async function addObjects(
  repository: Repository,
  { index, names }: Loaded,
  session: Session,
  listing: readonly ObjectHead[],
  { logger, signal }: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<void> {
  const isUsable = usableIn(session);
  const add = async (key: string): Promise<void> => {
    try {
      await readIndexRows(
        repository.objects,
        key,
        (pack, id, offset, storedLength) => {
          if (isUsable(pack.packId, offset)) index.addOne(pack, id, offset, storedLength);
        },
        { signal },
      );
      names.add(key);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      logger.warn("index object unreadable", { key, reason: error.message });
    }
  };
  const fresh = listing
    .map(({ key }) => key)
    .filter((key) => !names.has(key) && mayHaveHooks(key, index.hookBits));
  for (let at = 0; at < fresh.length; at += objectsInFlight) {
    await Promise.all(fresh.slice(at, at + objectsInFlight).map(add));
  }
}

/** A sparse index leaves out the shards that have no hooks: that is what makes loading it short. */
function mayHaveHooks(name: string, hookBits: number): boolean {
  const shard = parseShardName(name);
  if (shard === undefined) return true;
  return shard.prefix >>> Math.max(0, shard.bits - hookBits) === 0 || hookBits === 0;
}
