/**
 * Durable bytes under immutable keys. A put that resolved is visible to the next get and list;
 * no reader ever sees part of an object; a put never replaces what is there (where the store has
 * conditional writes; see `supports`). Keys are relative, of [A-Za-z0-9._/-], at most 512 characters. Bytes that are put may
 * lie in memory that threads share; they are the store's to read until the put has ended, and no longer.
 *
 * Failures: `object.not-found`, `object.exists`, `storage.unreachable` (retryable), `storage.refused`,
 * `storage.no-space`, `storage.locked` (removals only), `object.corrupt` (length or checksum differ from what was asked),
 * `unsupported` (retention on a store without `supports.objectLock`).
 */
export interface ObjectStore {
  readonly supports: ObjectStoreSupports;
  /** For messages: a path or `s3://bucket/prefix`, without credentials. */
  readonly url: string;
  /** Creates the object. Fails with `object.exists` if the key is taken (see `supports.conditionalPut`). */
  put(key: string, bytes: Uint8Array, options?: PutOptions): Promise<void>;
  get(key: string, options?: CallOptions): Promise<Uint8Array>;
  /** Exactly `length` bytes from `offset`; a shorter answer is `object.corrupt`. */
  getRange(key: string, range: ByteRange, options?: CallOptions): Promise<Uint8Array>;
  /** Undefined when it does not exist. */
  head(key: string, options?: CallOptions): Promise<ObjectHead | undefined>;
  /** Every object whose key starts with `prefix`, in byte order of the keys. */
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectHead>;
  /**
   * Removes these objects, in a versioned bucket with all their versions; one that is gone already is no failure. An empty key is
   * refused. Those that Object Lock keeps fail with `storage.locked`, which names them (`lockedObjectsIn`); the others are removed.
   */
  remove(keys: readonly string[], options?: CallOptions): Promise<void>;
  /** Only where `supports.objectLock`. */
  readonly locks?: ObjectLocks;
  /** Only where `supports.versioned`. */
  readonly versions?: ObjectVersions;
}

/** A retention can be made longer, never shorter. An object may have many versions; without an id the newest is meant. */
export interface ObjectLocks {
  /** Undefined when there is no such object. */
  look(key: string, options?: VersionOptions): Promise<ObjectLockState | undefined>;
  /** Fails with `object.not-found`, and with `storage.refused` where it would shorten or weaken the retention. */
  extend(key: string, retention: Retention, options?: VersionOptions): Promise<void>;
  /** Fails with `object.not-found`. */
  hold(key: string, isOn: boolean, options?: VersionOptions): Promise<void>;
}

/** What lies below the names: whoever may put can hide an object under a newer version, but not change the first one. */
export interface ObjectVersions {
  /** Every version and delete marker, in byte order of the keys; of one key the oldest last. */
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectVersion>;
  /** Fails with `object.not-found`. */
  get(key: string, versionId: string, options?: CallOptions): Promise<Uint8Array>;
  /** Puts a copy of this version on top of all others and of delete markers. Removes nothing. */
  reinstate(key: string, versionId: string, options?: CallOptions): Promise<void>;
}

export type ObjectVersion = {
  readonly key: string;
  readonly versionId: string;
  readonly isLatest: boolean;
  readonly isDeleteMarker: boolean;
  readonly sizeBytes: number;
  /** The store's own; equal for equal contents, mostly. Empty for delete markers. */
  readonly etag: string;
};

/** `compliance`: nobody can lift it. `governance`: a special right of the store can. */
export type Retention = {
  readonly mode: "compliance" | "governance";
  /** Milliseconds since 1970. */
  readonly untilMs: number;
};
export type ObjectLockState = {
  readonly retention: Retention | undefined;
  readonly legalHold: boolean;
};

export type CallOptions = { readonly signal?: AbortSignal };
export type PutOptions = CallOptions & { readonly retention?: Retention | undefined };
export type VersionOptions = CallOptions & { readonly versionId?: string };
export type ByteRange = { readonly offset: number; readonly length: number };
export type ObjectHead = {
  readonly key: string;
  readonly sizeBytes: number;
  /** When it was stored, by the store's own clock, in milliseconds since 1970; only from `head`, and where the store tells. */
  readonly storedAtMs?: number;
};

export type ObjectStoreSupports = {
  /** A put to a taken key is refused by the store itself, also between racing writers. */
  readonly conditionalPut: boolean;
  /** Objects keep versions: a removal must name them, and a put never destroys. */
  readonly versioned?: boolean | undefined;
  /** Retention and legal holds are kept by the store itself. */
  readonly objectLock?: boolean | undefined;
  /** A put whose checksum (CRC32C) is wrong is refused. Content-MD5 goes with every put anyway. */
  readonly checksums?: boolean | undefined;
};
