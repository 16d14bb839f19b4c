import { Failure } from "@holdfast/shared/domain/failure";
import type {
  CallOptions,
  ObjectStore,
  ObjectVersion,
  ObjectVersions,
} from "@holdfast/shared/ports/object-store";

/** An object whose first version lies below a newer one, or below a delete marker. */
export type HiddenObject = {
  readonly key: string;
  /** The version that was put first: the only one that Holdfast has written, as it never overwrites. */
  readonly firstVersionId: string;
  readonly sizeBytes: number;
  readonly why: "overwritten" | "deleted";
};

/**
 * Objects of a versioned bucket that somebody has overwritten or deleted without their versions: Holdfast does neither. `ignore` leaves
 * names out. One request for a thousand versions.
 */
export async function* hiddenObjects(
  store: ObjectStore,
  options: CallOptions & { readonly ignore?: (key: string) => boolean } = {},
): AsyncGenerator<HiddenObject> {
  const { ignore, ...call } = options;
  let newestFirst: ObjectVersion[] = [];
  for await (const version of versionsOf(store).list("", call)) {
    if (newestFirst[0] !== undefined && newestFirst[0].key !== version.key) {
      yield* judge(newestFirst);
      newestFirst = [];
    }
    if (ignore?.(version.key) !== true) newestFirst.push(version);
  }
  yield* judge(newestFirst);
}

/** Puts the first version of a hidden object back on top. Removes nothing; what lay above stays below it, for whoever looks into it. */
export async function recoverObject(
  store: ObjectStore,
  { key, firstVersionId }: HiddenObject,
  call?: CallOptions,
): Promise<void> {
  await versionsOf(store).reinstate(key, firstVersionId, call);
}

function* judge(newestFirst: readonly ObjectVersion[]): Generator<HiddenObject> {
  const [newest] = newestFirst;
  const first = newestFirst.findLast(({ isDeleteMarker }) => !isDeleteMarker);
  if (newest === undefined || first === undefined || first === newest) return;
  // After a recovery the newest is a copy of the first. What it really says, its reader authenticates.
  if (!newest.isDeleteMarker && newest.etag !== "" && newest.etag === first.etag) return;
  const { key, versionId: firstVersionId, sizeBytes } = first;
  yield { key, firstVersionId, sizeBytes, why: newest.isDeleteMarker ? "deleted" : "overwritten" };
}

function versionsOf(store: ObjectStore): ObjectVersions {
  if (store.versions !== undefined) return store.versions;
  throw new Failure("unsupported", { message: `${store.url} keeps no versions of objects` });
}
