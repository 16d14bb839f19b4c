import { isFailure } from "../domain/failure.ts";
import type { CallOptions, ObjectStore } from "../ports/object-store.ts";
import type { RandomBytes } from "../ports/random.ts";
import { corrupt, sameBytes, toHex } from "./format/bytes.ts";
import { openObject, type SealedType, sealObject } from "./format/sealed-object.ts";
import type { RepositorySecrets } from "./keys/secrets.ts";

/** Sealed records in the store, and bytes in memory sealed like them. */
export type RepositoryObjects = {
  readonly put: (
    name: string,
    type: SealedType,
    plain: Uint8Array,
    options?: CallOptions,
  ) => Promise<void>;
  readonly get: (name: string, type: SealedType, options?: CallOptions) => Promise<Uint8Array>;
  readonly seal: (name: string, type: SealedType, plain: Uint8Array) => Uint8Array;
  readonly open: (name: string, type: SealedType, bytes: Uint8Array) => Uint8Array;
};

/** The same for someone with a session, whose names say whose they are. */
export type NewObjects = RepositoryObjects & {
  /** Seals and puts `<folder>/<new id>`; returns the name. */
  readonly putNew: (
    folder: string,
    type: SealedType,
    plain: Uint8Array,
    options?: CallOptions,
  ) => Promise<string>;
};

export function namedBy(objects: RepositoryObjects, newId: () => Uint8Array): NewObjects {
  return {
    ...objects,
    putNew: async (folder, type, plain, options) => {
      const name = `${folder}/${toHex(newId())}`;
      await objects.put(name, type, plain, options);
      return name;
    },
  };
}

export function createObjects(o: {
  readonly store: ObjectStore;
  readonly secrets: RepositorySecrets;
  readonly random: RandomBytes;
}): RepositoryObjects {
  const { store, secrets, random } = o;
  const seal: RepositoryObjects["seal"] = (name, type, plain) =>
    sealObject({ secrets, type, name, plain, random });
  const open: RepositoryObjects["open"] = (name, type, bytes) =>
    openObject({ secrets, type, name, bytes });
  const put: RepositoryObjects["put"] = async (name, type, plain, options) => {
    const bytes = seal(name, type, plain);
    // Rule 5: what cannot be opened here will not be opened anywhere.
    if (!sameBytes(open(name, type, bytes), plain)) throw corrupt(`${name} was sealed wrongly`);
    await putOwn(store, name, bytes, options);
  };
  return {
    seal,
    open,
    put,
    get: async (name, type, options) => open(name, type, await store.get(name, options)),
  };
}

/**
 * Puts under a name that nobody else can have chosen. `object.exists` then means that an earlier try of this very put took
 * effect although its answer was lost; that is looked up, not assumed.
 */
export async function putOwn(
  store: ObjectStore,
  name: string,
  bytes: Uint8Array,
  options?: CallOptions,
): Promise<void> {
  try {
    await store.put(name, bytes, options);
  } catch (cause) {
    if (!isFailure(cause, "object.exists")) throw cause;
    const stored = await store.get(name, options);
    if (!sameBytes(stored, bytes)) {
      throw corrupt(`${name} exists with other bytes than were put`, { key: name, cause });
    }
  }
}
