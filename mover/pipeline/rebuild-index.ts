import { toHex } from "@holdfast/shared/repository/format/bytes";
import {
  encodeIndexSegment,
  type IndexedPack,
} from "@holdfast/shared/repository/index/index-segment";
import { mergeIndex } from "@holdfast/shared/repository/index/merge-index";
import { inParallel } from "@holdfast/shared/repository/maintenance/in-parallel";
import { removeBatch } from "@holdfast/shared/repository/maintenance/safety";
import { parseStoredName } from "@holdfast/shared/repository/maintenance/stored-name";
import { type PackFooter, packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { isUnreadable } from "./prepare-leaf.ts";
import { type PackToRead, readPackEnds } from "./verify-packs.ts";

/**
 * Makes the chunk index anew from the footers of all packs. What is new is there before what it replaces goes, so a rebuild that dies leaves some
 * chunks named twice, and the next one begins anew. Beside it all may go on: what sessions add to the index meanwhile stays.
 */
export type RebuildOptions = {
  readonly repository: Repository;
  /** Open and of kind `maintenance`; without one nothing is written. */
  readonly session: Session | undefined;
  /** Chunks in one new segment. */
  readonly segmentChunks?: number;
  readonly onPacks?: (packs: number) => void;
  readonly signal: AbortSignal;
};

export type RebuildReport = {
  readonly isDryRun: boolean;
  readonly packs: number;
  readonly dataPacks: number;
  readonly chunks: number;
  /** Left out: a collection removes or empties them. */
  readonly condemnedPacks: number;
  /** Left out: what lists their chunks does not open. Chunks in them that a backup meets are stored again. */
  readonly damagedPacks: readonly { readonly object: string; readonly reason: string }[];
  /** Objects of the index: written, and those that were replaced. */
  readonly written: number;
  readonly removed: number;
};

const packsInFlight = 16;
const segmentChunksDefault = 500_000;

export async function rebuildIndex(o: RebuildOptions): Promise<RebuildReport> {
  const { repository, session, signal } = o;
  const options = { signal };
  const { store } = repository;
  const { packs: doomed, compacting } = await forbidden(o);
  // Before the packs are listed: each pack that one of these names is among those listed then.
  const replaced: string[] = [];
  for await (const { key } of store.list("index/", options)) {
    if (parseStoredName(key).kind === "index") replaced.push(key);
  }
  const counts = { packs: 0, dataPacks: 0, chunks: 0, condemnedPacks: 0, written: 0 };
  const damagedPacks: { object: string; reason: string }[] = [];
  let batch: IndexedPack[] = [];
  let batchChunks = 0;

  async function flush(): Promise<void> {
    const packs = batch;
    batch = [];
    batchChunks = 0;
    if (packs.length === 0 || session === undefined) return;
    await session.objects.putNew("index", "index-segment", encodeIndexSegment(packs), options);
    counts.written += 1;
  }

  async function addPack(pack: PackToRead): Promise<void> {
    const footer = await readFooter(repository, pack, signal);
    counts.packs += 1;
    o.onPacks?.(counts.packs);
    if (footer === undefined) return;
    if (footer instanceof Error) {
      damagedPacks.push({ object: packName(pack.packId), reason: footer.message });
      return;
    }
    if (footer.kind !== "data-pack") return;
    counts.dataPacks += 1;
    counts.chunks += footer.records.count;
    batch.push({ packId: pack.packId, epoch: footer.epoch, records: footer.records });
    batchChunks += footer.records.count;
    if (batchChunks >= (o.segmentChunks ?? segmentChunksDefault)) await flush();
  }

  async function* packsToRead(): AsyncGenerator<PackToRead> {
    for await (const { key, sizeBytes } of store.list("packs/", options)) {
      const name = parseStoredName(key);
      if (name.kind !== "pack") continue;
      const id = toHex(name.id);
      if (doomed.has(id) || compacting.has(id)) counts.condemnedPacks += 1;
      else yield { packId: name.id, sizeBytes };
    }
  }

  await inParallel(packsToRead(), { inFlightMax: packsInFlight }, addPack);
  await flush();
  const report = { ...counts, damagedPacks, isDryRun: session === undefined, removed: 0 };
  if (session === undefined) return report;
  for (let at = 0; at < replaced.length; at += removeBatch) {
    await store.remove(replaced.slice(at, at + removeBatch), options);
  }
  const newId = (): string => toHex(session.newId());
  for (let left = 1; left > 0; ) {
    signal.throwIfAborted();
    const merged = await mergeIndex({ store, objects: repository.objects, newId }, options);
    report.written += merged.written;
    left = merged.left;
  }
  return { ...report, removed: replaced.length };
}

async function forbidden({ repository, session, signal }: RebuildOptions) {
  return session?.condemned ?? (await repository.sessions.condemned.load({ signal }));
}

/** Undefined for a pack that is gone: a collection that had begun before has removed it. What fails once only is no damage. */
async function readFooter(
  repository: Repository,
  pack: PackToRead,
  signal: AbortSignal,
): Promise<PackFooter | Error | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await readPackEnds(repository, pack, signal);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      if (attempt === 1) continue;
      return error.code === "object.not-found" ? undefined : error;
    }
  }
}
