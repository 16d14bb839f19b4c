import type { DoctorReport } from "@holdfast/shared/contracts/standalone";
import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStoreSupports } from "@holdfast/shared/ports/object-store";
import { configName, decodeConfig } from "@holdfast/shared/repository/format/config";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isUnexplained, sessionOfRoot } from "@holdfast/shared/repository/session/session-state";
import { danger, type Finding, note, warning } from "@holdfast/shared/storage/finding";
import { inspectStorage, openObjectStore } from "@holdfast/shared/storage/open-object-store";
import { hiddenObjects } from "@holdfast/shared/storage/recover-versions";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Objects that are named in one finding. */
const namedMax = 5;
/** Points whose locks are looked at, one request each. */
const rootsLookedAtMax = 100;
const dayMs = 24 * 60 * 60 * 1000;

/** Opens the repository, looks at its storage as when it was created, and says what is odd. Only `probe/` is written to. */
export async function doctor(
  context: StandaloneContext,
  request: Request<"repository-doctor">,
): Promise<DoctorReport> {
  const { url } = request;
  const { signal } = context;
  const opened = await attempt(() => context.open(request), signal);
  if (opened.failure?.code === "input.invalid") throw opened.failure;
  if (opened.failure?.code === "repository.not-found") {
    // Nothing is tried there: a share that is not mounted would get a folder of its own name.
    const what = `${opened.failure.message}: another place, or a share that is not mounted, or somebody removed its config`;
    return { url, findings: [danger("no-repository", what, opened.failure.kind.advice)] };
  }
  const found: Finding[] = opened.failure === undefined ? [] : [fromFailure(opened.failure)];
  const storage = await attempt(() => inspectStorage(url, { signal }), signal);
  found.push(...(storage.value?.findings ?? []));
  if (storage.failure !== undefined) found.push(fromFailure(storage.failure));
  const repository = opened.value;
  const looks: (() => Promise<readonly Finding[]>)[] = [];
  const { supports } = storage.value ?? {};
  // Not by the repository's own store: what keeps it from opening may be a config that somebody overwrote.
  if (supports?.versioned === true) looks.push(() => checkVersions(url, supports, signal));
  if (repository !== undefined) {
    if (supports !== undefined) looks.push(() => compareStore(repository, supports));
    looks.push(
      () => checkLocks(repository, signal),
      () => checkPoints(repository, signal),
      () => checkSessions(repository, signal),
    );
  }
  for (const look of looks) {
    const looked = await attempt(look, signal);
    found.push(...(looked.value ?? []));
    if (looked.failure !== undefined) found.push(fromFailure(looked.failure));
  }
  const known = repository && { repositoryId: repository.repositoryId };
  return { url, ...known, findings: sorted(found) };
}

/** What changed since the repository was created, or copied from elsewhere. */
async function compareStore(
  repository: Repository,
  now: ObjectStoreSupports,
): Promise<readonly Finding[]> {
  const { store: then } = decodeConfig(await repository.store.get(configName));
  const found: Finding[] = [];
  if (then.conditionalPut && !now.conditionalPut) {
    const what =
      "the store refused puts to taken names when the repository was created, and does not any more";
    found.push(
      danger("conditional-put-gone", what, "Find out what changed: versioning, a gateway?"),
    );
  }
  if (then.versioned !== true && now.versioned === true) {
    const what =
      "the bucket keeps versions now, and did not when the repository was created: what is removed stays, and costs";
    found.push(
      warning(
        "versioning-new",
        what,
        "Add a lifecycle rule for old versions only, or a new repository.",
      ),
    );
  }
  if (repository.lock !== undefined && now.objectLock === false) {
    const what = "the repository locks its objects, and the store does not have Object Lock";
    found.push(danger("lock-gone", what, "Move the repository to a bucket with Object Lock."));
  }
  return found;
}

async function checkLocks(
  { lock, store, clock, listPoints }: Repository,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const { locks } = store;
  if (lock === undefined || locks === undefined) return [];
  const names = [configName];
  for await (const { key } of store.list("keys/", { signal })) names.push(key);
  let points = 0;
  for await (const { rootKey } of listPoints({ signal })) {
    if (points < rootsLookedAtMax) names.push(rootKey);
    points += 1;
  }
  const bare: string[] = [];
  const late: string[] = [];
  for (const name of names) {
    const state = await locks.look(name, { signal });
    if (state === undefined) continue;
    const leftMs = (state.retention?.untilMs ?? 0) - clock.now();
    if (leftMs <= 0) bare.push(name);
    else if (leftMs < (lock.days * dayMs) / 2) late.push(name);
  }
  const remedy = "Run `holdfast repository extend-locks` regularly.";
  const found = [
    note(
      "lock",
      `objects are locked (${lock.mode}) for ${lock.days} days after they were written or extended`,
    ),
  ];
  if (bare.length > 0) {
    const what = `${bare.length} of ${names.length} objects that were looked at are not locked (any more): ${some(bare)}`;
    found.push(danger("not-locked", what, remedy));
  }
  if (late.length > 0) {
    const what = `the locks of ${late.length} of ${names.length} objects that were looked at end within ${lock.days / 2} days: ${some(late)}`;
    found.push(warning("locks-end", what, remedy));
  }
  return found;
}

async function checkVersions(
  url: string,
  supports: ObjectStoreSupports,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const store = await openObjectStore(url, { supports });
  const ignore = (key: string): boolean => key.startsWith("probe/");
  const hidden = { overwritten: [] as string[], deleted: [] as string[] };
  for await (const { key, why } of hiddenObjects(store, { ignore, signal })) hidden[why].push(key);
  const remedy =
    "Find out who did it; `holdfast repository recover` brings the first versions back.";
  return (["overwritten", "deleted"] as const)
    .filter((why) => hidden[why].length > 0)
    .map((why) => {
      const what = `${hidden[why].length} objects were ${why} by somebody else than Holdfast: ${some(hidden[why])}`;
      return danger(why, what, remedy);
    });
}

async function checkPoints(
  { listPoints }: Repository,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const unreadable: string[] = [];
  let points = 0;
  const onUnreadable = ({ key }: { readonly key: string }) => unreadable.push(key);
  for await (const _ of listPoints({ signal, onUnreadable })) points += 1;
  const found = [note("points", `${points} recovery points can be listed`)];
  if (unreadable.length === 0) return found;
  const what = `${unreadable.length} recovery points cannot be read: ${some(unreadable)}`;
  return [...found, danger("points-unreadable", what, "See `holdfast repository verify`.")];
}

/** Roots that nothing explains: a lifecycle rule on `sessions/`, or somebody, takes points away. */
async function checkSessions(
  { store, sessions }: Repository,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const roots: string[] = [];
  for await (const { key } of store.list("points/", { signal })) {
    if (sessionOfRoot(key) !== undefined) roots.push(key);
  }
  // After the roots: their sessions began before.
  const states = await sessions.list({ signal });
  const unexplained: string[] = [];
  for (const rootKey of roots.filter((key) => isUnexplained(key, states))) {
    // A collection may have cleared both away since.
    if ((await store.head(rootKey, { signal })) !== undefined) unexplained.push(rootKey);
  }
  if (unexplained.length === 0) return [];
  const what = `${unexplained.length} roots are no recovery points (any more), for objects under sessions/ are gone: ${some(unexplained)}`;
  const remedy =
    "Collections keep them for 14 days. End what removes objects (a lifecycle rule?) and put sessions/ back: by `holdfast repository recover` where the bucket keeps versions, or from a copy.";
  return [danger("points-unexplained", what, remedy)];
}

type Attempt<Value> =
  | { readonly value: Value; readonly failure?: undefined }
  | { readonly value?: undefined; readonly failure: Failure };

/** What fails is a finding like any other; what is no Failure is a defect, and being told to stop is neither. */
async function attempt<Value>(
  work: () => Promise<Value>,
  signal: AbortSignal,
): Promise<Attempt<Value>> {
  try {
    return { value: await work() };
  } catch (error) {
    if (signal.aborted || !isFailure(error)) throw error;
    return { failure: error };
  }
}

function fromFailure(failure: Failure): Finding {
  return danger(failure.code, failure.message, failure.kind.advice);
}

function sorted(findings: readonly Finding[]): Finding[] {
  const order = ["danger", "warning", "note"];
  return findings.toSorted((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
}

function some(names: readonly string[]): string {
  const more = names.length > namedMax ? `, and ${names.length - namedMax} more` : "";
  return `${names.slice(0, namedMax).join(", ")}${more}`;
}
