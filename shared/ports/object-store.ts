/**
 * Durable bytes under immutable keys. A put that resolved is visible to the next get and list;
 * no reader ever sees part of an object; a put never replaces what is there (where the store has
 * conditional writes; see `supports`). Keys are relative, of [A-Za-z0-9._/-], at most 512 characters. Bytes that are put may
 * lie in memory that threads share; they are the store's to read until the put has ended, and no longer.
 *
 * Failures: `object.not-found`, `object.exists`, `storage.unreachable` (retryable), `storage.refused`,
 * `storage.no-space`, `object.corrupt` (length or checksum differ from what was asked).
 */
export interface ObjectStore {
  readonly supports: ObjectStoreSupports;
  /** For messages: a path or `s3://bucket/prefix`, without credentials. */
  readonly url: string;
  /** Creates the object. Fails with `object.exists` if the key is taken (see `supports.conditionalPut`). */
  put(key: string, bytes: Uint8Array, options?: CallOptions): Promise<void>;
  get(key: string, options?: CallOptions): Promise<Uint8Array>;
  /** Exactly `length` bytes from `offset`; a shorter answer is `object.corrupt`. */
  getRange(key: string, range: ByteRange, options?: CallOptions): Promise<Uint8Array>;
  /** Undefined when it does not exist. */
  head(key: string, options?: CallOptions): Promise<ObjectHead | undefined>;
  /** Every object whose key starts with `prefix`, in byte order of the keys. */
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectHead>;
  /** Removes these objects; one that is gone already is no failure. An empty key is refused. */
  remove(keys: readonly string[], options?: CallOptions): Promise<void>;
}

export type CallOptions = { readonly signal?: AbortSignal };
export type ByteRange = { readonly offset: number; readonly length: number };
export type ObjectHead = { readonly key: string; readonly sizeBytes: number };

export type ObjectStoreSupports = {
  /** A put to a taken key is refused by the store itself, also between racing writers. */
  readonly conditionalPut: boolean;
};
