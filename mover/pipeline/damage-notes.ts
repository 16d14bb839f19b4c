import type { Failure } from "@holdfast/shared/domain/failure";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import {
  type DamageRecord,
  encodeDamage,
  type KnownDamage,
  readKnownDamage,
} from "@holdfast/shared/repository/pack/damage";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { DamageReport } from "./damage-report.ts";
import type { ChunkChecks } from "./verify-chunks.ts";
import type { VerifyHistory } from "./verify-history.ts";
import type { BadRecord } from "./verify-points.ts";

/** Collects what writers must not build on, and turns it into the record that tells them. */
export type DamageNotes = {
  /** From earlier runs. */
  readonly known: KnownDamage;
  readonly bad: (record: BadRecord) => void;
  /** A pack that does not say what is in it. */
  readonly unknownPack: (packId: Uint8Array, failure: Failure) => void;
  /** A pack that the index lists and that is gone. */
  readonly missingPack: (packId: Uint8Array) => void;
  /** Records of this pack were looked for and not found. */
  readonly missed: (packIdHex: string) => boolean;
  /** Tells of damage that costs no point anything. */
  readonly explain: (o: { readonly report: DamageReport; readonly chunks: ChunkChecks }) => void;
  /** The new record, which replaces all earlier ones; undefined when it would say what they say. */
  readonly assess: (o: {
    readonly report: DamageReport;
    readonly chunks: ChunkChecks;
    /** Of a whole run; others add to what is known and take nothing away. */
    readonly history: VerifyHistory | undefined;
    /** The report is about all points, so that those it does not name have no damage. */
    readonly isOfAll: boolean;
  }) => Uint8Array | undefined;
};

type Packs = Map<string, Set<number> | "all">;

export async function openDamageNotes(o: {
  readonly repository: Repository;
  readonly signal: AbortSignal;
}): Promise<DamageNotes> {
  const { clock } = o.repository;
  const known = await readKnownDamage(o.repository, { signal: o.signal });
  const unknown = new Map<string, { readonly packId: Uint8Array; readonly reason: string }>();
  const bad: Packs = new Map();

  function addPlace(packs: Packs, packId: string, offset: number): void {
    const its = packs.get(packId);
    if (its === "all") return;
    if (its === undefined) packs.set(packId, new Set([offset]));
    else its.add(offset);
  }

  return {
    known,
    bad: ({ packId, offset }) => addPlace(bad, toHex(packId), offset),
    missingPack: (packId) => bad.set(toHex(packId), "all"),
    missed: (packId) => bad.has(packId),
    unknownPack: (packId, { message }) => unknown.set(toHex(packId), { packId, reason: message }),
    explain: ({ report, chunks }) => {
      for (const packId of chunks.damaged().keys()) {
        const name = packName(Buffer.from(packId, "hex"));
        if (report.isBlamed(name)) continue;
        const reason = chunks.reasonOf(Buffer.from(packId, "hex")) ?? "it is damaged";
        report.harmless(
          name,
          `no recovery point needs what is damaged, or it is elsewhere too: ${reason}`,
        );
      }
      for (const { packId, reason } of unknown.values()) {
        const name = packName(packId);
        if (report.isBlamed(name)) continue;
        report.harmless(
          name,
          `no restore needs what is damaged of it, a rebuild of the index would: ${reason}`,
        );
      }
      for (const [name, { message }] of known.unreadable) {
        report.harmless(name, `what it remembered is verified anew: ${message}`);
      }
    },
    assess: ({ report, chunks, history, isOfAll }) => {
      const packs: Packs = new Map(
        Array.from(bad, ([packId, its]) => [packId, its === "all" ? its : new Set(its)]),
      );
      for (const [packId, offsets] of chunks.damaged()) {
        if (offsets === "all") packs.set(packId, "all");
        else for (const offset of offsets) addPlace(packs, packId, offset);
      }
      for (const { packId } of unknown.values()) {
        if (history?.isListed(packId) === true) packs.set(toHex(packId), "all");
      }
      for (const [packId, offsets] of known.places.packs) {
        const wasLookedAt = history !== undefined && !history.isDue(Buffer.from(packId, "hex"));
        if (wasLookedAt) continue;
        if (offsets === "all") packs.set(packId, "all");
        else for (const offset of offsets) addPlace(packs, packId, offset);
      }
      const points = new Map(isOfAll ? [] : known.points);
      for (const { rootKey, metadata, disks } of report.found().damagedPoints) {
        const bytesDamaged = disks.reduce((sum, disk) => sum + disk.bytesDamaged, 0);
        points.set(rootKey, { rootKey, bytesDamaged, metadata: metadata !== undefined });
      }
      const found = { packs: listPacks(packs), points: sorted([...points.values()]) };
      const before = {
        packs: listPacks(known.places.packs),
        points: sorted([...known.points.values()]),
      };
      const isNews = JSON.stringify(found) !== JSON.stringify(before);
      if (!isNews && known.recordNames.length <= 1) return undefined;
      return encodeDamage({
        v: 1,
        foundAt: new Date(clock.now()).toISOString(),
        replaces: [...known.recordNames],
        ...found,
      });
    },
  };
}

function listPacks(packs: KnownDamage["places"]["packs"]): DamageRecord["packs"] {
  return [...packs.keys()].sort().map((packId) => {
    const offsets = packs.get(packId);
    if (offsets === undefined || offsets === "all") return { packId };
    return { packId, offsets: [...offsets].sort((left, right) => left - right) };
  });
}

function sorted(points: DamageRecord["points"]): DamageRecord["points"] {
  return points
    .map(({ rootKey, bytesDamaged, metadata }) => ({ rootKey, bytesDamaged, metadata }))
    .sort((left, right) => (left.rootKey < right.rootKey ? -1 : 1));
}
