/** What an S3 bucket keeps below its names: versions and delete markers, with Object Lock where it has that. */
export type StoredVersion = {
  readonly versionId: string;
  readonly isDeleteMarker: boolean;
  readonly bytes: Buffer;
  readonly metadata: Readonly<Record<string, string>>;
  /** As S3 says them: COMPLIANCE or GOVERNANCE, and ISO 8601. */
  lock: { readonly mode: string; readonly until: string } | undefined;
  legalHold: string | undefined;
};

export type BucketVersions = {
  /** Newest first; a delete marker on top hides the rest. */
  readonly of: (key: string) => readonly StoredVersion[];
  readonly keys: () => readonly string[];
  readonly find: (key: string, versionId: string | undefined) => StoredVersion | undefined;
  readonly put: (
    key: string,
    object: Pick<StoredVersion, "bytes" | "metadata" | "lock">,
  ) => StoredVersion;
  /** False when Object Lock forbids it. */
  readonly remove: (key: string, versionId: string | undefined) => boolean;
};

export function createBucketVersions(isVersioned: () => boolean): BucketVersions {
  const versions = new Map<string, StoredVersion[]>();
  let count = 0;
  const of = (key: string): StoredVersion[] => versions.get(key) ?? [];

  function add(key: string, version: Omit<StoredVersion, "versionId">): StoredVersion {
    count += 1;
    const added = { ...version, versionId: isVersioned() ? `v${count}` : "null" };
    versions.set(key, isVersioned() ? [added, ...of(key)] : [added]);
    return added;
  }

  return {
    of,
    keys: () => [...versions.keys()].sort(),
    find: (key, versionId) => {
      const [newest] = of(key);
      const found =
        versionId === undefined ? newest : of(key).find((one) => one.versionId === versionId);
      return found?.isDeleteMarker === true ? undefined : found;
    },
    put: (key, object) => add(key, { ...object, isDeleteMarker: false, legalHold: undefined }),
    remove: (key, versionId) => {
      if (versionId === undefined && isVersioned()) {
        const marker = { bytes: Buffer.alloc(0), metadata: {}, lock: undefined };
        add(key, { ...marker, isDeleteMarker: true, legalHold: undefined });
        return true;
      }
      const going = of(key).filter((one) => (versionId ?? one.versionId) === one.versionId);
      if (going.some(isLocked)) return false;
      const kept = of(key).filter((one) => !going.includes(one));
      if (kept.length > 0) versions.set(key, kept);
      else versions.delete(key);
      return true;
    },
  };
}

function isLocked({ lock, legalHold }: StoredVersion): boolean {
  return legalHold === "ON" || (lock !== undefined && Date.parse(lock.until) > Date.now());
}
