import { Failure, isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions } from "../../ports/object-store.ts";
import type { Repository } from "../repository.ts";
import { decodeCondemned } from "../session/condemned.ts";
import { isOpen } from "../session/session-state.ts";
import { jobSilenceSeconds } from "../session/sessions.ts";
import { createSignedNames } from "../session/signed-name.ts";
import { readStartOf } from "./collector-session.ts";
import type { SilenceWatch } from "./silence.ts";

const stem = "condemned/list-";

/**
 * While a condemned list does not open, no session can begin, for nobody knows what it forbids. What it names is free to be used again once it is gone, so
 * it may go only when no collector that knows its contents will ever remove by it: the operator says so, and none is open here. Fails with `busy`.
 */
export async function dropDamagedLists(
  repository: Repository,
  watch: SilenceWatch,
  logger: Logger,
  options: CallOptions,
): Promise<void> {
  const { store, objects, sessions } = repository;
  const names = createSignedNames(repository.secrets, repository.random);
  const damaged: string[] = [];
  for await (const { key } of store.list(stem, options)) {
    if (names.stemOf(key) !== stem) continue;
    try {
      decodeCondemned(await objects.get(key, "condemned", options));
    } catch (error) {
      if (isFailure(error, "object.not-found")) continue;
      if (!isFailure(error, "object.corrupt")) throw error;
      damaged.push(key);
    }
  }
  if (damaged.length === 0) return;
  // After the damage was seen: who begins to collect now cannot.
  const states = await sessions.list(options);
  watch.see(states);
  for (const state of states.values()) {
    if (!isOpen(state)) continue;
    const start = await readStartOf(repository, state, options);
    if (start !== undefined && start.kind !== "maintenance") continue;
    const silenceSeconds = start?.silenceSeconds ?? jobSilenceSeconds;
    if (watch.silentMs(state.sessionId) >= silenceSeconds * 1000) {
      await sessions.fence([state.sessionId], options);
      continue;
    }
    await watch.save(options);
    throw new Failure("busy", {
      message: `${damaged.join(", ")} cannot be read, and ${start?.holder ?? `session ${state.sessionId}`} may be collecting by it since ${start?.startedAt ?? "an unknown time"}: run this again once that has ended`,
    });
  }
  logger.warn("damaged condemned lists are removed", { names: damaged });
  await store.remove(damaged, options);
}
