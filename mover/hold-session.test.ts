import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isOpen } from "@holdfast/shared/repository/session/session-state";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { type HeldSession, withReadSession, withSession } from "./hold-session.ts";
import { createTestRepository, openTestRepository } from "./pipeline/test-repository.ts";

/** A clock on which each sleep lasts until the test says so. */
function createStepClock() {
  const sleepers = new Set<() => void>();
  const clock: Clock = {
    now: () => 0,
    sleep: (_delayMs, signal) =>
      new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        sleepers.add(resolve);
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  };
  const wake = (): void => {
    for (const resolve of [...sleepers]) {
      sleepers.delete(resolve);
      resolve();
    }
  };
  return { clock, wake };
}

function held(repository: Repository, more: Partial<HeldSession> = {}): HeldSession {
  return {
    kind: "backup",
    holder: "test",
    pins: [],
    repository,
    clock: createStepClock().clock,
    logger,
    signal: new AbortController().signal,
    ...more,
  };
}

async function openSessions(repository: Repository): Promise<number> {
  return [...(await repository.sessions.list()).values()].filter(isOpen).length;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise(setImmediate);
}

test("a session is open while the work is done, and not after it: done, failed or cancelled", async () => {
  const repository = await createTestRepository(createMemoryObjectStore());
  const open = () => openSessions(repository);
  expect(await withSession(held(repository), open)).toBe(1);
  expect(await open()).toBe(0);
  const failing = withSession(held(repository), async () => {
    throw new Error("no");
  });
  await expect(failing).rejects.toThrow("no");
  expect(await open()).toBe(0);
  const abort = new AbortController();
  const cancelled = withSession(held(repository, { signal: abort.signal }), async (_, signal) => {
    abort.abort(new Failure("cancelled", { message: "cancelled" }));
    signal.throwIfAborted();
  });
  await expect(cancelled).rejects.toThrow("cancelled");
  expect(await open()).toBe(0);
});

test("it is renewed meanwhile, and a renewal that fails is followed by the next", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  let failures = 1;
  const repository = await openTestRepository({
    ...store,
    put: async (key, bytes, options) => {
      if (key.includes("/renew-") && failures > 0) {
        failures -= 1;
        throw new Failure("storage.unreachable", { message: "away" });
      }
      await store.put(key, bytes, options);
    },
  });
  const { clock, wake } = createStepClock();
  const renewals = async (): Promise<number> => {
    const [state] = (await repository.sessions.list()).values();
    return state?.renewals.length ?? 0;
  };
  await withSession(held(repository, { clock }), async () => {
    await until(async () => {
      wake();
      return (await renewals()) >= 2;
    });
  });
  expect(failures).toBe(0);
});

test("work whose session was taken for dead is stopped with that reason", async () => {
  const repository = await createTestRepository(createMemoryObjectStore());
  const { clock, wake } = createStepClock();
  const work = withSession(held(repository, { clock }), async (session, signal) => {
    await repository.sessions.fence([session.sessionId]);
    await until(async () => {
      wake();
      return signal.aborted;
    });
    signal.throwIfAborted();
  });
  await expect(work).rejects.toSatisfy((error) => isFailure(error, "session.ended"));
});

test("what may only read reads without a session, and says why", async () => {
  const store = createMemoryObjectStore();
  await createTestRepository(store);
  const repository = await openTestRepository({
    ...store,
    put: async () => {
      throw new Failure("storage.refused", { message: "read only" });
    },
  });
  const told: string[] = [];
  const onNoSession = (message: string): number => told.push(message);
  const done = await withReadSession({ ...held(repository), onNoSession }, async (session) => [
    session,
    "read",
  ]);
  expect(done).toEqual([undefined, "read"]);
  expect(told).toEqual([expect.stringContaining("read only")]);
  await expect(withSession(held(repository), async () => undefined)).rejects.toThrow("read only");
});

test("reading where one can write has a session that pins what is read", async () => {
  const repository = await createTestRepository(createMemoryObjectStore());
  const pins = ["points/vm/p-j-1-x"];
  await withReadSession(held(repository, { kind: "restore", pins }), async (session) => {
    const states = await repository.sessions.list();
    const [start = ""] = states.get(session?.sessionId ?? "")?.starts ?? [];
    expect(await repository.sessions.readStart(start)).toMatchObject({ kind: "restore", pins });
  });
  expect(await openSessions(repository)).toBe(0);
});
