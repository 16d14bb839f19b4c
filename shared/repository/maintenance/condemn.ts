import { isFailure } from "../../domain/failure.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import type { CondemnedList } from "../session/condemned.ts";
import { isOpen, type SessionStates } from "../session/session-state.ts";
import { type CollectionPlan, packIdOf } from "./plan-collection.ts";

/** A condemned list, and whom it waits for. */
export type ListInWork = {
  readonly name: string;
  readonly list: CondemnedList;
  /** Names of the objects that say who is waited for. */
  readonly waitedNames: readonly string[];
  /** Those that had a session when the list was put, and have not ended. */
  readonly waitingFor: readonly string[];
};

/**
 * Puts what a plan names, then looks who has a session: from now on no one begins to use any of it. When there is no space for a list
 * of everything, there may be for a shorter one.
 */
export async function condemn(
  repository: Repository,
  plan: CollectionPlan,
  options: CallOptions,
): Promise<{ readonly name: string; readonly list: CondemnedList }> {
  for (let share = 1; ; share /= 8) {
    const part = <T>(all: readonly T[]): readonly T[] =>
      all.slice(0, Math.ceil(all.length * share));
    const list: CondemnedList = {
      madeAt: Math.max(0, repository.clock.now()),
      roots: plan.roots.map(({ name }) => name),
      packs: part(plan.packs).map(packIdOf),
      compacting: [],
      objects: part(plan.objects).map(({ name }) => name),
    };
    try {
      return { name: await repository.sessions.condemned.put(list, options), list };
    } catch (error) {
      const isWorthLess = plan.packs.length * share > 1 && isFailure(error, "storage.no-space");
      if (!isWorthLess) throw error;
    }
  }
}

/** Whom a list waits for, of those that are open now; noted for whoever goes on with it, if that was not done. */
export async function openWhenCondemned(
  repository: Repository,
  listed: { readonly name: string; readonly list: CondemnedList },
  sessions: SessionStates,
  o: { readonly own: string | undefined; readonly options: CallOptions },
): Promise<ListInWork> {
  const { condemned } = repository.sessions;
  const noted = await condemned.waited(listed.name, o.options);
  if (noted !== undefined) {
    const waitingFor = noted.sessionIds.filter((id) => isOpen(sessions.get(id)) && id !== o.own);
    return { ...listed, waitedNames: noted.names, waitingFor };
  }
  const waitingFor = [...sessions.values()]
    .filter((state) => isOpen(state) && state.sessionId !== o.own)
    .map(({ sessionId }) => sessionId);
  const waitedName = await putNote(repository, listed.name, waitingFor, o.options);
  return { ...listed, waitedNames: waitedName, waitingFor };
}

/** Without it, whoever goes on with the list waits for all that are open then: longer, but never too short. */
async function putNote(
  repository: Repository,
  listName: string,
  sessionIds: readonly string[],
  options: CallOptions,
): Promise<readonly string[]> {
  try {
    return [await repository.sessions.condemned.putWaited(listName, sessionIds, options)];
  } catch (error) {
    if (!isFailure(error, "storage.no-space")) throw error;
    return [];
  }
}
