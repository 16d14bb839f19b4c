import { z } from "zod";
import { type Failure, isFailure } from "../../domain/failure.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { corrupt, toHex } from "../format/bytes.ts";
import type { RepositoryObjects } from "../objects.ts";

/**
 * What verification and repair know to be damaged, in `damaged/<random>`: places that writers must not deduplicate against, so that the next
 * backup stores these chunks again, and points that cannot be restored whole. A record replaces those that it names; all that are not
 * replaced count together. Losing one costs no data: the next verification finds the damage again.
 */
const hex16 = z.string().regex(/^[0-9a-f]{32}$/);
const DamageRecord = z.object({
  v: z.literal(1),
  /** ISO 8601; for display only. */
  foundAt: z.string().max(64),
  /** Names without folder. */
  replaces: z.array(hex16),
  packs: z.array(
    z.object({
      packId: hex16,
      /** Of damaged records; absent when the pack is missing or no record of it opens. */
      offsets: z.array(z.int().min(0).max(0xffff_ffff)).optional(),
    }),
  ),
  points: z.array(
    z.object({
      rootKey: z.string().max(512),
      /** Over all disks. */
      bytesDamaged: z.int().min(0),
      metadata: z.boolean(),
    }),
  ),
});
export type DamageRecord = z.infer<typeof DamageRecord>;

/** Everything that is known to be damaged; `record` is what a new one replaces in full. */
export type KnownDamage = {
  readonly places: DamagedPlaces;
  /** By root key. */
  readonly points: ReadonlyMap<string, DamageRecord["points"][number]>;
  /** Names without folder, of the records that count. */
  readonly recordNames: readonly string[];
  /** Names of those that others replace: nobody needs them any more. */
  readonly replaced: readonly string[];
  /** Names of those that do not open. */
  readonly unreadable: ReadonlyMap<string, Failure>;
};

export type DamagedPlaces = {
  readonly has: (packId: Uint8Array, offset: number) => boolean;
  /** In hexadecimal; `all` for a pack that is missing or of which nothing opens. */
  readonly packs: ReadonlyMap<string, ReadonlySet<number> | "all">;
};

export const damageFolder = "damaged";

export function createDamagedPlaces(
  packs: ReadonlyMap<string, ReadonlySet<number> | "all">,
): DamagedPlaces {
  return {
    packs,
    has: (packId, offset) => {
      if (packs.size === 0) return false;
      const its = packs.get(toHex(packId));
      return its === "all" || (its?.has(offset) ?? false);
    },
  };
}

export function encodeDamage(record: DamageRecord): Uint8Array {
  return Buffer.from(JSON.stringify(DamageRecord.parse(record)), "utf8");
}

/** Fails with `object.corrupt`. */
export function decodeDamage(bytes: Uint8Array, name: string): DamageRecord {
  try {
    return DamageRecord.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
  } catch (cause) {
    throw corrupt(`${name} is no damage record`, { key: name, cause });
  }
}

/** Reads all damage records. */
export async function readKnownDamage(
  o: { readonly store: ObjectStore; readonly objects: RepositoryObjects },
  options?: CallOptions,
): Promise<KnownDamage> {
  const records = new Map<string, DamageRecord>();
  const unreadable = new Map<string, Failure>();
  for await (const { key } of o.store.list(`${damageFolder}/`, options)) {
    try {
      const plain = await o.objects.get(key, "damage", options);
      records.set(key.slice(damageFolder.length + 1), decodeDamage(plain, key));
    } catch (error) {
      // One that was removed meanwhile was replaced.
      if (isFailure(error, "object.not-found")) continue;
      if (!isFailure(error, "object.corrupt") && !isFailure(error, "repository.epoch-unknown")) {
        throw error;
      }
      unreadable.set(key, error);
    }
  }
  const replaced = new Set([...records.values()].flatMap(({ replaces }) => replaces));
  const counting = [...records].filter(([name]) => !replaced.has(name));
  const packs = new Map<string, Set<number> | "all">();
  const points = new Map<string, DamageRecord["points"][number]>();
  for (const [, record] of counting) {
    for (const { packId, offsets } of record.packs) {
      const known = packs.get(packId);
      if (offsets === undefined || known === "all") packs.set(packId, "all");
      else packs.set(packId, new Set([...(known ?? []), ...offsets]));
    }
    for (const point of record.points) points.set(point.rootKey, point);
  }
  return {
    places: createDamagedPlaces(packs),
    points,
    recordNames: counting.map(([name]) => name),
    replaced: [...records.keys()]
      .filter((name) => replaced.has(name))
      .map((name) => `${damageFolder}/${name}`),
    unreadable,
  };
}
