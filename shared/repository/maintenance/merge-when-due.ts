import { isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions, ObjectHead, ObjectStore } from "../../ports/object-store.ts";
import { isMergeDue, mergeIndex } from "../index/merge-index.ts";
import type { Repository } from "../repository.ts";
import type { CollectorSession } from "./collector-session.ts";
import { inParallel } from "./in-parallel.ts";
import { readsInFlight } from "./safety.ts";

/**
 * Merges the index where that makes it much better; returns how many objects were replaced. Objects that the store would not let go are left out. A merge
 * that fails costs nothing but its work: what it would have replaced is there.
 */
export async function mergeWhenDue(
  o: {
    readonly repository: Repository;
    readonly collector: CollectorSession;
    readonly logger: Logger;
  },
  options: CallOptions,
): Promise<number> {
  const { repository, collector, logger } = o;
  // Who has no space even for a session has none for a merge.
  if (collector.sessionId === undefined) return 0;
  try {
    const listing = await unlocked(repository, options);
    if (!isMergeDue(listing)) return 0;
    const { objects } = repository;
    const store = aliveStore(repository.store, listing, collector);
    const put: typeof objects.put = async (...call) => {
      await collector.alive();
      await objects.put(...call);
    };
    const { newId } = collector;
    const report = await mergeIndex({ store, objects: { ...objects, put }, newId }, options);
    logger.info("index merged", report);
    return report.merged;
  } catch (error) {
    const isHarmless =
      isFailure(error) && (error.code.startsWith("storage.") || error.code.startsWith("object."));
    if (!isHarmless) throw error;
    logger.warn("the index could not be merged", { reason: error.message });
    return 0;
  }
}

async function unlocked(
  { store, clock }: Repository,
  options: CallOptions,
): Promise<readonly ObjectHead[]> {
  const listing: ObjectHead[] = [];
  for await (const head of store.list("index/", options)) listing.push(head);
  const { locks } = store;
  if (locks === undefined) return listing;
  const locked = new Set<string>();
  await inParallel(listing, { inFlightMax: readsInFlight }, async ({ key }) => {
    const state = await locks.look(key, options);
    const untilMs = state?.retention?.untilMs ?? 0;
    if (state?.legalHold === true || untilMs > clock.now()) locked.add(key);
  });
  return listing.filter(({ key }) => !locked.has(key));
}

/** Of the index just these objects; and who was fenced neither puts nor removes any more. */
function aliveStore(
  store: ObjectStore,
  listing: readonly ObjectHead[],
  collector: CollectorSession,
): Pick<ObjectStore, "list" | "remove"> {
  return {
    async *list() {
      yield* listing;
    },
    remove: async (keys, options) => {
      await collector.alive();
      await store.remove(keys, options);
    },
  };
}
