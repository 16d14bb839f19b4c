import { Failure, isFailure } from "../../domain/failure.ts";
import type { Logger } from "../../ports/logger.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { corrupt, createByteReader, createByteWriter, toHex } from "../format/bytes.ts";
import type { RepositoryObjects } from "../objects.ts";
import type { SignedNames } from "./signed-name.ts";

/**
 * What a collection is going to remove. Sessions that begin while the list is there use nothing on it; a collector removes only what is on it, after
 * every session that was open when it was put has ended and a second mark has still found no need for it. The list itself is removed last.
 */
export type CondemnedList = {
  /** Milliseconds since 1970 on the collector's clock; for display only. */
  readonly madeAt: number;
  /** Pack ids in hexadecimal. Nothing of these packs is used by sessions that begin from now on. */
  readonly packs: readonly string[];
  /** Pack ids in hexadecimal. Nothing is found in these by the index any more, but leaves of a previous point may stay as they are. */
  readonly compacting: readonly string[];
  /** Roots of points that expire, and of attempts. */
  readonly roots: readonly string[];
  /** Names of all other objects. */
  readonly objects: readonly string[];
};

/** All lists that are there, as one. */
export type Condemned = {
  readonly packs: ReadonlySet<string>;
  readonly compacting: ReadonlySet<string>;
  readonly roots: ReadonlySet<string>;
  readonly objects: ReadonlySet<string>;
  /** The lists' own names, sorted. */
  readonly names: readonly string[];
};

export const nothingCondemned: Condemned = {
  packs: new Set(),
  compacting: new Set(),
  roots: new Set(),
  objects: new Set(),
  names: [],
};

export type CondemnedLists = {
  /** Puts a list under a new name, which is returned. */
  readonly put: (list: CondemnedList, options?: CallOptions) => Promise<string>;
  /** Every list by name. One that is removed meanwhile makes it look again; a damaged one fails with `object.corrupt`; planted names are ignored. */
  readonly list: (options?: CallOptions) => Promise<ReadonlyMap<string, CondemnedList>>;
  /** The same, united. */
  readonly load: (options?: CallOptions) => Promise<Condemned>;
  /**
   * Remembers for whoever continues a collection which sessions were open when they were listed after the list had been put: these are waited
   * for, and no others. Removed together with its list.
   */
  readonly putWaited: (
    listName: string,
    sessionIds: readonly string[],
    options?: CallOptions,
  ) => Promise<string>;
  /** What `putWaited` has put for this list: names and sessions; undefined when there is nothing, then every session open now is waited for. */
  readonly waited: (
    listName: string,
    options?: CallOptions,
  ) => Promise<
    { readonly names: readonly string[]; readonly sessionIds: readonly string[] } | undefined
  >;
  /** What `putWaited` has put for lists that are gone. */
  readonly orphanedNotes: (options?: CallOptions) => Promise<readonly string[]>;
};

const folder = "condemned/";
const listStem = `${folder}list-`;
const version = 1;
/** Lists are replaced a few times a day at most. */
const looksMax = 100;
/** Lists that were opened, kept because they never change. */
const cacheMax = 16;

export function createCondemnedLists(parts: {
  readonly store: ObjectStore;
  readonly objects: RepositoryObjects;
  readonly names: SignedNames;
  readonly logger: Logger;
}): CondemnedLists {
  const { store, objects, names } = parts;
  const opened = new Map<string, CondemnedList>();

  async function open(name: string, options?: CallOptions): Promise<CondemnedList | undefined> {
    const known = opened.get(name);
    if (known !== undefined) return known;
    const bytes = await getIfThere(name, options);
    if (bytes === undefined) return undefined;
    const list = decodeCondemned(bytes);
    if (opened.size >= cacheMax) opened.clear();
    opened.set(name, list);
    return list;
  }

  async function getIfThere(name: string, options?: CallOptions): Promise<Uint8Array | undefined> {
    try {
      return await objects.get(name, "condemned", options);
    } catch (error) {
      if (isFailure(error, "object.not-found")) return undefined;
      throw error;
    }
  }

  /** Until each that was listed could be read: one that is gone may have been replaced by another, which is put before. */
  async function list(options?: CallOptions): Promise<ReadonlyMap<string, CondemnedList>> {
    for (let look = 1; look <= looksMax; look += 1) {
      const found = await tryList(options);
      if (found !== undefined) return found;
    }
    throw new Failure("storage.unreachable", {
      message: `${store.url} lists condemned lists that it does not have`,
    });
  }

  async function tryList(
    options?: CallOptions,
  ): Promise<ReadonlyMap<string, CondemnedList> | undefined> {
    const found = new Map<string, CondemnedList>();
    let isWhole = true;
    for await (const { key } of store.list(folder, options)) {
      const stem = names.stemOf(key);
      if (stem === undefined) {
        parts.logger.warn("planted object ignored", { key });
      } else if (stem === listStem) {
        const its = await open(key, options);
        if (its === undefined) isWhole = false;
        else found.set(key, its);
      }
    }
    return isWhole ? found : undefined;
  }

  const waitedStem = (listName: string): string => {
    if (names.stemOf(listName) !== listStem) {
      throw new Failure("input.invalid", { message: `${listName} is no condemned list` });
    }
    return `${folder}waited-${listName.slice(listStem.length)}-`;
  };

  /** By names alone: `list-<its tag>` and, later in the listing, `waited-<that tag>-`. A note without which a list is met only makes waits longer. */
  async function orphanedNotes(options?: CallOptions): Promise<readonly string[]> {
    const lists = new Set<string>();
    const orphans: string[] = [];
    for await (const { key } of store.list(folder, options)) {
      const stem = names.stemOf(key);
      if (stem === listStem) lists.add(waitedStem(key));
      else if (stem?.startsWith(`${folder}waited-`) === true && !lists.has(stem)) orphans.push(key);
    }
    return orphans;
  }

  return {
    list,
    orphanedNotes,
    load: async (options) => unite(await list(options)),
    put: async (condemned, options) => {
      const name = names.sign(listStem);
      await objects.put(name, "condemned", encodeCondemned(condemned), options);
      return name;
    },
    putWaited: async (listName, sessionIds, options) => {
      const name = names.sign(waitedStem(listName));
      const writer = createByteWriter(64 + sessionIds.length * 8).u8(version);
      writer.u32(sessionIds.length);
      for (const id of sessionIds) writer.bytes(fromHex(id, 8));
      await objects.put(name, "condemned", writer.done(), options);
      return name;
    },
    waited: async (listName, options) => {
      const stem = waitedStem(listName);
      const found: string[] = [];
      const sessionIds = new Set<string>();
      for await (const { key } of store.list(stem, options)) {
        if (names.stemOf(key) !== stem) continue;
        const bytes = await getIfThere(key, options);
        // Removed by another collector that finishes the list: then whoever is open is waited for.
        if (bytes === undefined) continue;
        const reader = createByteReader(bytes, key);
        if (reader.u8() !== version) throw corrupt(`${key} has an unknown version`, { key });
        const count = reader.count(reader.u32(), 8);
        for (let index = 0; index < count; index += 1) sessionIds.add(toHex(reader.take(8)));
        reader.end();
        found.push(key);
      }
      return found.length === 0 ? undefined : { names: found, sessionIds: [...sessionIds] };
    },
  };
}

export function encodeCondemned(list: CondemnedList): Uint8Array {
  const writer = createByteWriter(64 * 1024)
    .u8(version)
    .u64(list.madeAt);
  for (const packs of [list.packs, list.compacting]) {
    writer.u32(packs.length);
    for (const packId of packs) writer.bytes(fromHex(packId, 16));
  }
  for (const objectNames of [list.roots, list.objects]) {
    writer.u32(objectNames.length);
    for (const name of objectNames) writer.text(name);
  }
  return writer.done();
}

export function decodeCondemned(bytes: Uint8Array): CondemnedList {
  const reader = createByteReader(bytes, "condemned list");
  if (reader.u8() !== version) throw corrupt("condemned list has an unknown version");
  const madeAt = reader.u64();
  const packIds = (): string[] => {
    const count = reader.count(reader.u32(), 16);
    return Array.from({ length: count }, () => toHex(reader.take(16)));
  };
  const texts = (): string[] => {
    const count = reader.count(reader.u32(), 2);
    return Array.from({ length: count }, reader.text);
  };
  const list = {
    madeAt,
    packs: packIds(),
    compacting: packIds(),
    roots: texts(),
    objects: texts(),
  };
  reader.end();
  return list;
}

function unite(lists: ReadonlyMap<string, CondemnedList>): Condemned {
  const all = [...lists.values()];
  return {
    packs: new Set(all.flatMap(({ packs }) => packs)),
    compacting: new Set(all.flatMap(({ compacting }) => compacting)),
    roots: new Set(all.flatMap(({ roots }) => roots)),
    objects: new Set(all.flatMap(({ objects }) => objects)),
    names: [...lists.keys()].sort(),
  };
}

function fromHex(text: string, lengthBytes: number): Uint8Array {
  if (text.length !== 2 * lengthBytes || !/^[0-9a-f]+$/.test(text)) {
    throw new Failure("input.invalid", {
      message: `${JSON.stringify(text.slice(0, 80))} is not ${lengthBytes} bytes in hexadecimal`,
    });
  }
  return Buffer.from(text, "hex");
}
