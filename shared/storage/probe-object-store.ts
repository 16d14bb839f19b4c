import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { CallOptions, ObjectStore } from "@holdfast/shared/ports/object-store";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { danger, type Finding, note, type StorageReport, warning } from "./finding.ts";

/** Large enough for a store that frames or splits bodies to show itself, and of no round length. */
const probeBytes = 300_007;
const probeFolder = "probe/";
const racersMax = 4;

/** The longest names that a repository makes are shorter. */
const nameSegment = "n".repeat(120);

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
    readonly call?: CallOptions | undefined;
  },
): Promise<StorageReport> {
  const { random, call } = options;
  const folder = probeFolderName(random);
  const unguarded = options.openUnguarded?.() ?? store;
  const names = ["a", "a-b", "b/a", "race", "case", "CASE", "hold"];
  const longest = Array.from({ length: 3 }, () => nameSegment).join("/");
  const made = [...names, longest].map((name) => `${folder}${name}`);
  const findings: Finding[] = [];
  try {
    await checkBodies(store, { folder, random, call });
    await checkListing(store, { folder, call });
    await checkNames(store, { folder, longest, call }, findings);
    const conditionalPut = await refusesTakenKeys(unguarded, `${folder}race`, { random, call });
    await checkHold(store, `${folder}hold`, findings, call);
    const canRemove = await removes(store, made, findings, call);
    if (canRemove) await expectGone(store, { folder, call });
    return { supports: { ...store.supports, conditionalPut }, findings };
  } catch (error) {
    // The probe's own verdict matters more than what is left of it; `probe/` holds nothing else.
    await store.remove(made).catch(() => undefined);
    throw error;
  }
}

/** A new folder for what one probe makes; ends in a slash. */
export function probeFolderName(random: RandomBytes): string {
  return `${probeFolder}${Buffer.from(random(12)).toString("hex")}/`;
}

async function removes(
  store: ObjectStore,
  keys: readonly string[],
  findings: Finding[],
  call: CallOptions | undefined,
): Promise<boolean> {
  try {
    await store.remove(keys, call);
    return true;
  } catch (error) {
    if (isFailure(error, "storage.locked")) {
      const what = `objects of this probe are locked although it did not ask for it: ${error.message}`;
      findings.push(warning("locked-unasked", what, "Remove the bucket's default retention."));
      return false;
    }
    if (!isFailure(error, "storage.refused")) throw error;
    const what = `this credential may not remove objects: right for movers, too little for collection; what the probe made stays below ${probeFolder}`;
    findings.push(note("cannot-remove", what));
    return false;
  }
}

async function checkNames(
  store: ObjectStore,
  { folder, longest, call }: Context & { readonly longest: string },
  findings: Finding[],
): Promise<void> {
  const long = await outcome(store.put(`${folder}${longest}`, new Uint8Array(1), call));
  if (long !== undefined) {
    if (!isFailure(long)) throw long;
    const what = `an object with a name of ${folder.length + longest.length} characters cannot be stored: ${long.message}`;
    findings.push(danger("short-names", what, "Use a shorter prefix, or another file system."));
  }
  await store.put(`${folder}case`, new Uint8Array(1), call);
  const other = await outcome(store.put(`${folder}CASE`, new Uint8Array(2), call));
  if (other === undefined) return;
  if (!isFailure(other, "object.exists")) throw other;
  const what = "names that differ in upper and lower case only are the same there";
  findings.push(warning("case-insensitive", what, "Use a case-sensitive file system."));
}

/** A legal hold leaves nothing behind, unlike a retention: it shows that the store keeps what it is told to keep. */
async function checkHold(
  store: ObjectStore,
  key: string,
  findings: Finding[],
  call: CallOptions | undefined,
): Promise<void> {
  const { locks } = store;
  if (locks === undefined) return;
  await store.put(key, new Uint8Array(1), call);
  const denied = await outcome(locks.hold(key, true, call));
  if (denied !== undefined) {
    if (!isFailure(denied)) throw denied;
    const what = `Object Lock could not be tried: ${denied.message}`;
    findings.push(note("lock-untried", what, "Try it with a credential that may set legal holds."));
    return;
  }
  const removal = await outcome(store.remove([key], call));
  await locks.hold(key, false, call);
  if (isFailure(removal, "storage.locked") || isFailure(removal, "storage.refused")) return;
  if (removal !== undefined) throw removal;
  const what = "the store says that it has Object Lock, and removes an object under legal hold";
  findings.push(danger("lock-not-kept", what, "Do not rely on this store's Object Lock."));
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

function outcome(work: Promise<unknown>): Promise<unknown> {
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
