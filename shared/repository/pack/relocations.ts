import { isFailure } from "../../domain/failure.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { corrupt, createByteReader, createByteWriter, sameBytes, toHex } from "../format/bytes.ts";
import { openObject } from "../format/sealed-object.ts";
import type { RepositorySecrets } from "../keys/secrets.ts";

/**
 * Where records of a pack are found besides their own place: in another pack that holds the same bytes. Written when a
 * pack is compacted or repaired; points stay as they were written. A reader asks only when a record is missing where it should be or does
 * not open there, and checks what it finds by the record's id, so that a wrong row costs a read and nothing else.
 */
export type Relocation = {
  readonly packId: Uint8Array;
  readonly rows: readonly RelocationRow[];
};

export type RelocationRow = {
  /** Of the record in the old pack. */
  readonly offset: number;
  readonly to: RecordLocation;
};

export type RecordLocation = {
  readonly packId: Uint8Array;
  readonly epoch: number;
  readonly offset: number;
  readonly storedLength: number;
};

export const relocationFolder = "relocations";
const version = 1;
const packIdBytes = 16;
const packRowBytes = packIdBytes + 4;
const rowBytes = 4 * 4;

/** `relocations/<old pack id>-<random>`; `unique` are 16 bytes, the first 8 those of the writer's session. */
export function relocationName(packId: Uint8Array, unique: Uint8Array): string {
  return `${relocationPrefix(packId)}${toHex(unique)}`;
}

function relocationPrefix(packId: Uint8Array): string {
  return `${relocationFolder}/${toHex(packId)}-`;
}

export function encodeRelocation({ packId, rows }: Relocation): Uint8Array {
  const packs: RecordLocation[] = [];
  const numbers = new Map<string, number>();
  const body = createByteWriter(64 + rows.length * rowBytes);
  for (const { offset, to } of rows.toSorted((left, right) => left.offset - right.offset)) {
    const key = `${toHex(to.packId)}/${to.epoch}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = packs.length;
      numbers.set(key, number);
      packs.push(to);
    }
    body.u32(offset).u32(number).u32(to.offset).u32(to.storedLength);
  }
  const writer = createByteWriter(64).u8(version).bytes(packId).u32(packs.length);
  for (const pack of packs) writer.bytes(pack.packId).u32(pack.epoch);
  return writer.u32(rows.length).bytes(body.done()).done();
}

/** Fails with `object.corrupt`. */
export function decodeRelocation(bytes: Uint8Array): Relocation {
  const reader = createByteReader(bytes, "relocation");
  if (reader.u8() !== version) throw corrupt("relocation has an unknown version");
  const packId = Uint8Array.from(reader.take(packIdBytes));
  const packCount = reader.count(reader.u32(), packRowBytes);
  const packs = Array.from({ length: packCount }, () => ({
    packId: Uint8Array.from(reader.take(packIdBytes)),
    epoch: reader.u32(),
  }));
  const count = reader.count(reader.u32(), rowBytes);
  const rows = Array.from({ length: count }, (): RelocationRow => {
    const offset = reader.u32();
    const pack = packs[reader.u32()];
    if (pack === undefined) throw corrupt("a row of a relocation names no pack");
    return { offset, to: { ...pack, offset: reader.u32(), storedLength: reader.u32() } };
  });
  reader.end();
  return { packId, rows };
}

/** Fails with `object.corrupt` also when it is not about the pack that its name says. */
export async function readRelocation(
  o: { readonly store: ObjectStore; readonly secrets: RepositorySecrets },
  name: string,
  options?: CallOptions,
): Promise<Relocation> {
  const bytes = await o.store.get(name, options);
  const plain = openObject({ secrets: o.secrets, type: "relocation", name, bytes });
  const relocation = decodeRelocation(plain);
  if (!name.startsWith(relocationPrefix(relocation.packId))) {
    throw corrupt(`${name} is about pack ${toHex(relocation.packId)}`, { key: name });
  }
  return relocation;
}

export type Relocations = {
  /**
   * All other places of the record at `offset` of a pack, over any number of moves, nearest first; the place itself is not among them.
   * Relocation objects that cannot be read are left out: verification names them.
   */
  readonly find: (
    packId: Uint8Array,
    offset: number,
    options?: CallOptions,
  ) => Promise<readonly RecordLocation[]>;
  /** What is found from now on is read anew: to be called before a record is given up, since packs may have been moved again meanwhile. */
  readonly forget: () => void;
};

/** Moves from pack to pack that a search follows; places that it gives. */
const movesMax = 16;
const placesMax = 64;
/** Packs whose relocations are kept in memory: some 10 KiB each. */
const packsKept = 256;

/** Reads nothing until it is asked; remembers what it read, so one instance serves one restore or one run, not a mover's life. */
export function createRelocations(o: {
  readonly store: ObjectStore;
  readonly secrets: RepositorySecrets;
}): Relocations {
  const known = new Map<string, Promise<ReadonlyMap<number, readonly RecordLocation[]>>>();

  async function load(
    packId: Uint8Array,
    options?: CallOptions,
  ): Promise<ReadonlyMap<number, readonly RecordLocation[]>> {
    const places = new Map<number, RecordLocation[]>();
    for await (const { key } of o.store.list(relocationPrefix(packId), options)) {
      try {
        for (const { offset, to } of (await readRelocation(o, key, options)).rows) {
          const others = places.get(offset) ?? [];
          others.push(to);
          places.set(offset, others);
        }
      } catch (error) {
        const isUnreadable =
          isFailure(error, "object.not-found") ||
          isFailure(error, "object.corrupt") ||
          isFailure(error, "repository.epoch-unknown");
        if (!isUnreadable) throw error;
      }
    }
    return places;
  }

  function loadOnce(packId: Uint8Array, options?: CallOptions) {
    const key = toHex(packId);
    const loaded = known.get(key);
    if (loaded !== undefined) return loaded;
    const loading = load(packId, options);
    loading.catch(() => {
      if (known.get(key) === loading) known.delete(key);
    });
    known.set(key, loading);
    const oldest = known.keys().next().value;
    if (known.size > packsKept && oldest !== undefined) known.delete(oldest);
    return loading;
  }

  return {
    forget: () => known.clear(),
    find: async (packId, offset, options) => {
      const found: RecordLocation[] = [];
      let next: { readonly packId: Uint8Array; readonly offset: number }[] = [{ packId, offset }];
      const isKnown = (to: RecordLocation): boolean =>
        (to.offset === offset && sameBytes(to.packId, packId)) ||
        found.some((other) => other.offset === to.offset && sameBytes(other.packId, to.packId));
      for (let move = 0; move < movesMax && next.length > 0; move += 1) {
        const reached: RecordLocation[] = [];
        for (const place of next) {
          for (const to of (await loadOnce(place.packId, options)).get(place.offset) ?? []) {
            if (isKnown(to) || found.length >= placesMax) continue;
            found.push(to);
            reached.push(to);
          }
        }
        next = reached;
      }
      return found;
    },
  };
}
