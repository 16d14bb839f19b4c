import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type {
  CallOptions,
  ObjectStore,
  ObjectStoreSupports,
} from "@holdfast/shared/ports/object-store";
import type { RandomBytes } from "@holdfast/shared/ports/random";

/** Large enough for a store that frames or splits bodies to show itself, and of no round length. */
const probeBytes = 300_007;
const probeFolder = "probe/";
const racersMax = 4;

/**
 * Finds out what a store can do, by doing it under `probe/`, and removes its objects again. Fails with
 * `storage.refused` when the store does not give back what it was given, loses or invents entries, or overwrites in a
 * way that would damage a repository. `openUnguarded` opens the same place such that a put relies on the store's own
 * refusal of taken keys (`supports.conditionalPut` true) instead of looking first.
 */
export async function probeObjectStore(
  store: ObjectStore,
  options: {
    readonly random: RandomBytes;
    readonly openUnguarded?: () => ObjectStore;
    readonly call?: CallOptions;
  },
): Promise<ObjectStoreSupports> {
  const { random, call } = options;
  const folder = `${probeFolder}${Buffer.from(random(12)).toString("hex")}/`;
  const unguarded = options.openUnguarded?.() ?? store;
  const made = [
    `${folder}a`,
    `${folder}a-b`,
    `${folder}a/b`.replace("a/b", "b/a"),
    `${folder}race`,
  ];
  try {
    await checkBodies(store, { folder, random, call });
    await checkListing(store, { folder, call });
    const conditionalPut = await refusesTakenKeys(unguarded, `${folder}race`, { random, call });
    await store.remove(made, call);
    await expectGone(store, { folder, call });
    return { conditionalPut };
  } catch (error) {
    // The probe's own verdict matters more than what is left of it; `probe/` holds nothing else.
    await store.remove(made).catch(() => undefined);
    throw error;
  }
}

async function checkBodies(
  store: ObjectStore,
  context: Context & { random: RandomBytes },
): Promise<void> {
  const { folder, random, call } = context;
  const key = `${folder}a`;
  const bytes = random(probeBytes);
  await store.put(key, bytes, call);
  const stored = await store.get(key, call);
  if (Buffer.compare(stored, bytes) !== 0) {
    throw refused(
      store,
      `${bytes.length} bytes were stored and ${stored.length} other bytes came back`,
    );
  }
  const range = { offset: 1000, length: 70_000 };
  const part = await store.getRange(key, range, call);
  if (Buffer.compare(part, bytes.subarray(range.offset, range.offset + range.length)) !== 0) {
    throw refused(store, "a range read gives other bytes than were stored there");
  }
  const head = await store.head(key, call);
  if (head?.sizeBytes !== bytes.length) {
    throw refused(store, `an object of ${bytes.length} bytes is said to have ${head?.sizeBytes}`);
  }
  const taken = await outcome(store.put(key, random(10), call));
  if (!isFailure(taken, "object.exists")) {
    if (taken !== undefined) throw taken;
    throw refused(store, "an object that was just stored is overwritten: reads are stale");
  }
}

async function checkListing(store: ObjectStore, { folder, call }: Context): Promise<void> {
  await store.put(`${folder}a-b`, new Uint8Array(0), call);
  await store.put(`${folder}b/a`, new Uint8Array(1), call);
  const listed: string[] = [];
  for await (const { key, sizeBytes } of store.list(folder, call)) {
    listed.push(`${key.slice(folder.length)}=${sizeBytes}`);
  }
  const expected = `a=${probeBytes} a-b=0 b/a=1`;
  if (listed.join(" ") !== expected) {
    throw refused(store, `the listing should be "${expected}" and is "${listed.join(" ")}"`);
  }
}

/** Puts to one key at once, then once more; each refusal counts only if exactly one put ever got through. */
async function refusesTakenKeys(
  store: ObjectStore,
  key: string,
  { random, call }: { random: RandomBytes; call: CallOptions | undefined },
): Promise<boolean> {
  if (!store.supports.conditionalPut) return false;
  const bodies = Array.from({ length: racersMax }, () => random(1000));
  const outcomes = await Promise.all(bodies.map((bytes) => outcome(store.put(key, bytes, call))));
  outcomes.push(await outcome(store.put(key, random(1000), call)));
  for (const error of outcomes) {
    if (error !== undefined && !isFailure(error, "object.exists")) {
      if (isFailure(error, "storage.refused")) return false;
      throw error;
    }
  }
  const winners = bodies.filter((_, index) => outcomes[index] === undefined);
  const stored = await store.get(key, call);
  const [winner] = winners;
  return (
    winner !== undefined &&
    winners.length === 1 &&
    outcomes.at(-1) !== undefined &&
    Buffer.compare(stored, winner) === 0
  );
}

async function expectGone(store: ObjectStore, { folder, call }: Context): Promise<void> {
  for await (const { key } of store.list(folder, call)) {
    throw refused(store, `${key} was removed and is still listed`);
  }
}

type Context = { readonly folder: string; readonly call: CallOptions | undefined };

function outcome(work: Promise<void>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

function refused(store: ObjectStore, what: string): Failure {
  return new Failure("storage.refused", {
    message: `${store.url} cannot hold a repository: ${what}`,
  });
}
