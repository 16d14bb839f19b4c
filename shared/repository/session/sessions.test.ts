import { describe, expect, test } from "vitest";
import { Failure, isFailure } from "../../domain/failure.ts";
import { systemClock } from "../../ports/clock.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { createDigests } from "../extent-map/digest.ts";
import { emptyLeafTable } from "../extent-map/disk-record.ts";
import { diskDigest } from "../extent-map/disk-records.ts";
import {
  createRepository,
  type NewPoint,
  openRepository,
  type PointSummary,
  type Repository,
} from "../repository.ts";
import { isCommitted, isOpen } from "./session-state.ts";
import type { BeginSession, Session } from "./sessions.ts";

const parts = { passphrase: "right", clock: systemClock, random: systemRandom };
const passphraseCost = { memoryKiB: 64, passes: 1 };

/** Each call of the store, as `put points/…`; ids are left out. */
type Calls = string[];

function recording(store: ObjectStore, calls: Calls): ObjectStore {
  return {
    ...store,
    put: async (key, bytes, options) => {
      calls.push(`put ${plain(key)}`);
      await store.put(key, bytes, options);
    },
    list: (prefix, options) => {
      calls.push(`list ${plain(prefix)}`);
      return store.list(prefix, options);
    },
  };
}

const plain = (name: string): string => name.replaceAll(/[0-9a-f]{16,}/g, "#");

async function setUp(wrap: (store: ObjectStore) => ObjectStore = (store) => store) {
  const store = createMemoryObjectStore();
  await createRepository({ store, passphraseCost, ...parts });
  const repository = await openRepository({ store: wrap(store), ...parts });
  return { store, repository };
}

const begin = (repository: Repository, more: Partial<BeginSession> = {}): Promise<Session> =>
  repository.sessions.begin({
    kind: "backup",
    holder: "test",
    pins: [],
    silenceSeconds: 60,
    ...more,
  });

/** A disk that is one hole: enough for a point. */
async function putDisk(
  repository: Repository,
  session: Session,
  sizeBytes = 10_000,
): Promise<string> {
  const { leafBytes } = repository.settings;
  const leaves = emptyLeafTable(sizeBytes, leafBytes);
  leaves.set(0, "hole");
  const stats = { bytesRead: 0, bytesNew: 0, bytesStored: 0 };
  const record = { diskKey: "vda", sizeBytes, leafBytes, leaves, stats };
  const digest = diskDigest(createDigests(repository.secrets), record, "disk");
  return repository.writeDiskRecord(session, { ...record, digest });
}

async function putMetadata(repository: Repository, session: Session): Promise<string> {
  const description = { name: "web", disks: [] };
  const metadata = { providerKind: "libvirt", description, excludedDisks: [], documents: {} };
  // Only what a reader checks.
  const { metadataKey } = await repository.putMetadata(session, metadata as never);
  return metadataKey;
}

async function aPoint(repository: Repository, session: Session): Promise<NewPoint> {
  return {
    pointId: "p1",
    vmKey: "vm1",
    vmName: "web",
    providerId: "host",
    jobId: "j1",
    fence: 1,
    takenAt: "2026-11-20T12:00:00Z",
    mode: "full",
    consistency: "crash",
    warnings: [],
    metadata: { metadataKey: await putMetadata(repository, session) },
    disks: [
      { key: "vda", recordKey: await putDisk(repository, session), mode: "full", reason: "" },
    ],
  };
}

async function listed(repository: Repository, vmKey?: string): Promise<readonly PointSummary[]> {
  const found: PointSummary[] = [];
  for await (const point of repository.listPoints(vmKey === undefined ? {} : { vmKey })) {
    found.push(point);
  }
  return found;
}

async function names(store: ObjectStore, prefix: string): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

const ended = (error: unknown): boolean => isFailure(error, "session.ended");

describe("order", () => {
  test("a start is put before what is condemned is read, a root before its session is looked at, an end last", async () => {
    const calls: Calls = [];
    const { repository } = await setUp((store) => recording(store, calls));
    calls.length = 0;
    const session = await begin(repository);
    expect(calls).toEqual(["put sessions/#/start-#", "list condemned/", "list damaged/"]);
    const point = await aPoint(repository, session);
    calls.length = 0;
    await repository.writePoint(session, point);
    const prefix = "list points/vm1/p1-j1-1-";
    expect(calls).toEqual([
      prefix,
      "put points/vm1/p1-j1-1-#",
      "list sessions/#/",
      "put sessions/#/end-#-#",
    ]);
  });

  test("points are listed before sessions, and what is condemned last", async () => {
    const calls: Calls = [];
    const { repository } = await setUp((store) => recording(store, calls));
    calls.length = 0;
    await listed(repository);
    expect(calls).toEqual(["list points/", "list sessions/", "list condemned/"]);
  });

  test("a collector's fence is put before it looks for roots", async () => {
    const calls: Calls = [];
    const { repository } = await setUp((store) => recording(store, calls));
    const { sessionId } = await begin(repository);
    calls.length = 0;
    await repository.sessions.fence([sessionId]);
    expect(calls).toEqual(["put sessions/#/fence-#", "list points/", "put sessions/#/end-none-#"]);
  });
});

describe("names", () => {
  test("everything that a session makes says whose it is", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    expect(session.sessionId).toMatch(/^[0-9a-f]{16}$/);
    expect(rootKey).toMatch(new RegExp(`^points/vm1/p1-j1-1-${session.sessionId}[0-9a-f]{16}$`));
    for (const folder of ["disks", "metadata"]) {
      expect(await names(store, `${folder}/`)).toEqual([
        expect.stringMatching(new RegExp(`^${folder}/${session.sessionId}[0-9a-f]{16}$`)),
      ]);
    }
    expect(session.newId()).toHaveLength(16);
    expect(session.newId()).not.toEqual(session.newId());
  });

  test("what others plant under sessions and condemned lists decides nothing", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    const { rootKey } = await repository.writePoint(session, point);
    const other = await begin(repository);
    const tag = "0".repeat(48);
    const end = rootKey.slice(-16);
    const [realEnd = ""] = await names(store, `sessions/${session.sessionId}/end-`);
    const bytes = await store.get(realEnd);
    for (const stem of ["start-", "fence-", "end-none-", `end-${end}-`, "x", ""]) {
      await store.put(`sessions/${session.sessionId}/${stem}${tag}`, bytes);
      await store.put(`sessions/${other.sessionId}/${stem}${tag}`, bytes);
    }
    // A real name in another folder, and a real object under another name.
    const moved = realEnd.replace(session.sessionId, other.sessionId);
    await store.put(moved, bytes);
    await store.put(`condemned/list-${tag}`, bytes);
    expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
    const states = await repository.sessions.list();
    expect(isOpen(states.get(other.sessionId))).toBe(true);
    expect(states.get(session.sessionId)).toMatchObject({ fences: [], endNones: [] });
    expect((await begin(repository)).condemned.names).toEqual([]);
    await repository.sessions.resume(other.sessionId);
  });

  test("a root that was planted beside a session's is no point", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    const planted = `${rootKey.slice(0, -16)}${"0".repeat(16)}`;
    await store.put(planted, await store.get(rootKey));
    const uncommitted: string[] = [];
    const found: string[] = [];
    const onUncommitted = (key: string): number => uncommitted.push(key);
    for await (const point of repository.listPoints({ onUncommitted })) found.push(point.rootKey);
    expect(found).toEqual([rootKey]);
    expect(uncommitted).toEqual([planted]);
  });

  test("damage to the bytes of a session's objects takes no point away", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    for (const name of await names(store, "sessions/")) {
      await store.remove([name]);
      await store.put(name, new Uint8Array([1, 2, 3]));
    }
    expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
  });
});

describe("commit", () => {
  test("R23: a writer that was silent for too long is refused, and its root is never a point", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    // Everything happens while it sleeps; then it wakes up and goes on.
    expect(await repository.sessions.fence([session.sessionId])).toEqual([
      { sessionId: session.sessionId, adopted: [] },
    ]);
    await expect(repository.writePoint(session, point)).rejects.toSatisfy(ended);
    await expect(session.renew()).rejects.toSatisfy(ended);
    await expect(repository.sessions.resume(session.sessionId)).rejects.toSatisfy(ended);
    await expect(begin(repository, { sessionId: session.sessionId })).rejects.toSatisfy(ended);
    expect(await names(store, "points/")).toHaveLength(1);
    expect(await listed(repository)).toEqual([]);
  });

  test("R23: the same when the collector died between its fence and the rest", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    const dying = await openRepository({
      ...parts,
      store: {
        ...store,
        list: (prefix, options) => {
          if (prefix === "points/") throw new Failure("storage.unreachable", { message: "died" });
          return store.list(prefix, options);
        },
      },
    });
    await expect(dying.sessions.fence([session.sessionId])).rejects.toThrow("died");
    await expect(repository.writePoint(session, point)).rejects.toSatisfy(ended);
    // It has said so before it was told: no collector can make its root a point any more.
    await repository.sessions.fence([session.sessionId]);
    expect(await listed(repository)).toEqual([]);
  });

  test("a root that a collector saw becomes a point, and its writer hears that it is one", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    const asleep = await openRepository({
      ...parts,
      store: {
        ...store,
        put: async (key, bytes, options) => {
          await store.put(key, bytes, options);
          if (key.startsWith("points/")) await repository.sessions.fence([session.sessionId]);
        },
      },
    });
    const its = await asleep.sessions.resume(session.sessionId);
    const { rootKey } = await asleep.writePoint(its, point);
    expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
  });

  test("fence and commit at once, in all orders of their steps: the writer's answer is the truth", async () => {
    // Each store call of both waits for its turn; a number's bits say whose turn it is.
    for (let order = 0; order < 2 ** 6; order += 1) {
      const { store, repository } = await setUp();
      const session = await begin(repository);
      const point = await aPoint(repository, session);
      const gate = createTurns(order, 6);
      const writer = await openRepository({ ...parts, store: gated(store, gate.wait, 0) });
      const collector = await openRepository({ ...parts, store: gated(store, gate.wait, 1) });
      const its = await writer.sessions.resume(session.sessionId);
      gate.start();
      const [written] = await Promise.allSettled([
        writer.writePoint(its, point).finally(() => gate.leave(0)),
        collector.sessions.fence([session.sessionId]).finally(() => gate.leave(1)),
      ]);
      const points = (await listed(repository)).map(({ rootKey }) => rootKey);
      const claimed = written.status === "fulfilled" ? [written.value.rootKey] : [];
      expect([order, points]).toEqual([order, claimed]);
    }
  });

  test("of two attempts in one session, one that is refused does not take the other's point away", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    // The first has looked for a fence, and is about to put its end; everything else happens then.
    let refused: unknown;
    const slow = await openRepository({
      ...parts,
      store: {
        ...store,
        put: async (key, bytes, options) => {
          if (key.includes("/end-") && refused === undefined) {
            refused = "underway";
            const dying = await openRepository({
              ...parts,
              store: {
                ...store,
                list: (prefix, its) => {
                  if (prefix === "points/") throw new Error("died");
                  return store.list(prefix, its);
                },
              },
            });
            await expect(dying.sessions.fence([session.sessionId])).rejects.toThrow("died");
            refused = await repository
              .writePoint(session, { ...point, jobId: "j2" })
              .catch((error: unknown) => error);
          }
          await store.put(key, bytes, options);
        },
      },
    });
    const first = await slow.sessions.resume(session.sessionId);
    const { rootKey } = await slow.writePoint(first, point);
    expect(refused).toSatisfy(ended);
    expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
  });

  test("a zombie's root is invisible after its session has ended, and after all of that was cleared away", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    await session.abort();
    const again = await repository.sessions.list();
    expect(isOpen(again.get(session.sessionId))).toBe(false);
    await expect(repository.writePoint(session, point)).rejects.toSatisfy(ended);
    expect(await listed(repository)).toEqual([]);
    await store.remove(await names(store, "sessions/"));
    await expect(repository.writePoint(session, point)).rejects.toSatisfy(ended);
    expect(await listed(repository)).toEqual([]);
  });

  test("an end without its session's start makes no point", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    await store.remove(await names(store, `sessions/${session.sessionId}/start-`));
    expect(await listed(repository)).toEqual([]);
    expect(isCommitted(rootKey, await repository.sessions.list())).toBe(false);
  });

  test("once a root was tried to be put, a failure ends nothing: a collector decides", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    const failing = await openRepository({
      ...parts,
      store: {
        ...store,
        put: async (key, bytes, options) => {
          await store.put(key, bytes, options);
          if (key.includes("/end-")) {
            throw new Failure("storage.unreachable", { message: "no answer" });
          }
        },
      },
    });
    const its = await failing.sessions.resume(session.sessionId);
    await expect(failing.writePoint(its, point)).rejects.toThrow("no answer");
    await its.abort();
    // It took effect, and may have been seen.
    expect(await listed(repository)).toHaveLength(1);
  });
});

describe("idempotence", () => {
  test("R30: whichever put of the commit lost its answer, repeating it makes one point", async () => {
    for (const lost of ["points/", "/end-"]) {
      const { store, repository } = await setUp();
      const session = await begin(repository);
      const point = await aPoint(repository, session);
      const failing = await openRepository({
        ...parts,
        store: {
          ...store,
          put: async (key, bytes, options) => {
            await store.put(key, bytes, options);
            if (key.includes(lost)) {
              throw new Failure("storage.unreachable", { message: "no answer" });
            }
          },
        },
      });
      const first = await failing.sessions.resume(session.sessionId);
      await expect(failing.writePoint(first, point)).rejects.toThrow("no answer");
      const second = await repository.sessions.resume(session.sessionId, { alsoCommitted: true });
      const { rootKey } = await repository.writePoint(second, point);
      expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
      expect(await names(store, "points/")).toEqual([rootKey]);
    }
  });

  test("an earlier attempt's root is compared, not trusted", async () => {
    const { repository } = await setUp();
    const session = await begin(repository);
    const point = await aPoint(repository, session);
    await repository.writePoint(session, point);
    const again = await repository.sessions.resume(session.sessionId, { alsoCommitted: true });
    const recordKey = await putDisk(repository, again, 20_000);
    const others: readonly Partial<NewPoint>[] = [
      { disks: [{ key: "vda", recordKey, mode: "full", reason: "" }] },
      { takenAt: "2026-11-21T12:00:00Z" },
      { metadata: { metadataKey: await putMetadata(repository, again) } },
      { parent: { pointId: "p0", rootKey: "points/vm1/p0" } },
    ];
    for (const other of others) {
      const attempt = repository.writePoint(again, { ...point, ...other });
      await expect(attempt).rejects.toSatisfy((error) => isFailure(error, "conflict"));
    }
    // A VM that was renamed meanwhile is the same VM.
    await repository.writePoint(again, { ...point, vmName: "renamed" });
    expect(await listed(repository)).toHaveLength(1);
  });

  test("R40: of two movers that are copies of each other, both commit the same point or one is refused", async () => {
    const { store, repository } = await setUp();
    const sessionId = "00112233aabbccdd";
    const movers = await Promise.all(
      [1, 2].map(async () => {
        const its = await openRepository({ store, ...parts });
        return { its, session: await begin(its, { sessionId }) };
      }),
    );
    const point = await aPoint(repository, await repository.sessions.resume(sessionId));
    const done = await Promise.allSettled(
      movers.map(({ its, session }) => its.writePoint(session, point)),
    );
    const points = await listed(repository);
    expect(points).toHaveLength(1);
    const claimed = done.flatMap((one) => (one.status === "fulfilled" ? [one.value.rootKey] : []));
    const states = await repository.sessions.list();
    expect(claimed.length).toBeGreaterThan(0);
    for (const rootKey of claimed) expect(isCommitted(rootKey, states)).toBe(true);
    // A third one comes late, and makes another point of the same job.
    const late = await repository.sessions.resume(sessionId, { alsoCommitted: true });
    const otherDisk = await putDisk(repository, late, 20_000);
    const disks = [{ key: "vda", recordKey: otherDisk, mode: "full" as const, reason: "" }];
    await expect(repository.writePoint(late, { ...point, jobId: "j2", disks })).rejects.toSatisfy(
      ended,
    );
    expect(await listed(repository)).toEqual(points);
  });
});

describe("what is condemned", () => {
  test("is known to sessions that begin or are resumed later, and hides its points", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    expect(session.condemned.names).toEqual([]);
    const older = await begin(repository);
    const packs = ["ab".repeat(16)];
    const name = await repository.sessions.condemned.put({
      madeAt: 1,
      packs,
      compacting: ["cd".repeat(16)],
      roots: [rootKey],
      objects: ["disks/x"],
    });
    for (const its of [
      await begin(repository),
      await repository.sessions.resume(older.sessionId),
    ]) {
      expect(its.condemned).toEqual({
        names: [name],
        packs: new Set(packs),
        compacting: new Set(["cd".repeat(16)]),
        roots: new Set([rootKey]),
        objects: new Set(["disks/x"]),
      });
      expect(await repository.sessions.isUsablePoint(its, rootKey)).toBe(false);
    }
    expect(await repository.sessions.isUsablePoint(older, rootKey)).toBe(true);
    expect(await listed(repository)).toEqual([]);
    expect(await repository.sessions.condemned.waited(name)).toBeUndefined();
    const waitedName = await repository.sessions.condemned.putWaited(name, [older.sessionId]);
    expect(await repository.sessions.condemned.waited(name)).toEqual({
      names: [waitedName],
      sessionIds: [older.sessionId],
    });
    expect([...(await repository.sessions.condemned.list()).keys()]).toEqual([name]);
    await store.remove([name]);
    expect((await listed(repository)).map((found) => found.rootKey)).toEqual([rootKey]);
  });

  test("a list that is damaged stops writers, for they cannot know; and hides nothing from readers", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    const list = { madeAt: 1, packs: [], compacting: [], roots: [rootKey], objects: [] };
    const name = await repository.sessions.condemned.put(list);
    const bytes = await store.get(name);
    await store.remove([name]);
    await store.put(name, bytes.subarray(0, 100));
    const fresh = await openRepository({ store, ...parts });
    await expect(begin(fresh)).rejects.toSatisfy((error) => isFailure(error, "object.corrupt"));
    expect(await listed(fresh)).toHaveLength(1);
  });

  test("a point whose root is gone is not built on, although its session still says that it is one", async () => {
    const { store, repository } = await setUp();
    const session = await begin(repository);
    const { rootKey } = await repository.writePoint(session, await aPoint(repository, session));
    await store.remove([rootKey]);
    expect(await repository.sessions.isUsablePoint(await begin(repository), rootKey)).toBe(false);
  });
});

test("a VM's points are found by looking at its sessions alone", async () => {
  const calls: Calls = [];
  const { repository } = await setUp((store) => recording(store, calls));
  for (const vmKey of ["vm1", "vm2"]) {
    const session = await begin(repository);
    await repository.writePoint(session, { ...(await aPoint(repository, session)), vmKey });
  }
  calls.length = 0;
  expect((await listed(repository, "vm2")).map(({ vmKey }) => vmKey)).toEqual(["vm2"]);
  expect(calls).toEqual(["list points/vm2/", "list sessions/#/", "list condemned/"]);
});

function gated(store: ObjectStore, wait: (who: number) => Promise<void>, who: number): ObjectStore {
  return {
    ...store,
    put: async (key, bytes, options) => {
      await wait(who);
      await store.put(key, bytes, options);
    },
    list: async function* (prefix, options) {
      await wait(who);
      yield* store.list(prefix, options);
    },
  };
}

/** Two that take turns as the bits of `order` say; after those, and when one has left, nobody waits. */
function createTurns(order: number, turns: number) {
  const queue = Array.from({ length: turns }, (_, turn) => (order >> turn) & 1);
  const waiting: (() => void)[][] = [[], []];
  const gone = [false, false];
  let isOn = false;
  function next(): void {
    while (queue.length > 0 && gone[queue[0] ?? 0] === true) queue.shift();
    const who = queue[0];
    if (who === undefined) for (const wake of waiting.flat().splice(0)) wake();
    else if ((waiting[who]?.length ?? 0) > 0) {
      queue.shift();
      waiting[who]?.shift()?.();
    }
  }
  return {
    start: () => {
      isOn = true;
    },
    leave: (who: number) => {
      gone[who] = true;
      next();
    },
    wait: (who: number): Promise<void> => {
      if (!isOn) return Promise.resolve();
      const turn = new Promise<void>((resolve) => waiting[who]?.push(resolve));
      next();
      return turn;
    },
  };
}
