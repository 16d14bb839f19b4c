import type { StatsReport } from "@holdfast/shared/contracts/standalone";
import { inParallel } from "@holdfast/shared/repository/maintenance/in-parallel";
import { type StatsProgress, surveyStats } from "@holdfast/shared/repository/maintenance/stats";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isUnreadable } from "../pipeline/prepare-leaf.ts";
import { type PackToRead, readPackEnds } from "../pipeline/verify-packs.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** People hear at most this often how far it is. */
const noteMs = 5000;
const packsInFlight = 16;

export async function stats(
  context: StandaloneContext,
  request: Request<"repository-stats">,
): Promise<StatsReport> {
  const { clock, signal } = context;
  const repository = await context.open(request);
  const startedMs = clock.now();
  let notedMs = startedMs;
  const onProgress = ({ stage, done }: StatsProgress): void => {
    if (clock.now() - notedMs < noteMs) return;
    notedMs = clock.now();
    context.emit({ type: "note", message: `${stage}: ${done}` });
  };
  const { stats: found, samplePacks } = await surveyStats(repository, onProgress, { signal });
  const sample = await readSample(repository, samplePacks(request.samplePacks), signal);
  const { points, stored, packs } = found;
  const compression = sample.storedBytes === 0 ? 1 : sample.rawBytes / sample.storedBytes;
  const isExact = sample.packs + sample.unreadable === packs.count;
  const dataShare = sample.bytes === 0 ? 1 : sample.dataPackBytes / sample.bytes;
  return {
    repositoryId: repository.repositoryId,
    url: repository.store.url,
    points: { ...points },
    stored: { ...stored, classes: [...stored.classes] },
    packs: { ...packs },
    sample: { ...sample, isExact },
    ratios: {
      compression,
      uniqueBytes: isExact ? sample.rawBytes : Math.round(packs.bytes * dataShare * compression),
      logicalToStored: stored.bytes === 0 ? 0 : points.logicalBytes / stored.bytes,
    },
    sessions: [...found.sessions],
    condemned: [...found.condemned],
    keys: { ...found.keys, epochs: [...found.keys.epochs] },
    unreadable: found.unreadable,
    seconds: (clock.now() - startedMs) / 1000,
  };
}

/** What packs' footers say of what they hold. */
async function readSample(
  repository: Repository,
  packs: Iterable<PackToRead>,
  signal: AbortSignal,
) {
  const sum = {
    packs: 0,
    bytes: 0,
    dataPacks: 0,
    dataPackBytes: 0,
    metadataPacks: 0,
    chunks: 0,
    /** Of data packs' records: before and after compression and sealing. */
    rawBytes: 0,
    storedBytes: 0,
    unreadable: 0,
  };
  const epochs = new Map<number, number>();
  await inParallel(packs, { inFlightMax: packsInFlight }, async (pack) => {
    try {
      const { kind, epoch, records } = await readPackEnds(repository, pack, signal);
      sum.packs += 1;
      sum.bytes += pack.sizeBytes;
      epochs.set(epoch, (epochs.get(epoch) ?? 0) + 1);
      if (kind === "metadata-pack") {
        sum.metadataPacks += 1;
        return;
      }
      sum.dataPacks += 1;
      sum.dataPackBytes += pack.sizeBytes;
      sum.chunks += records.count;
      for (const bytes of records.rawLengths) sum.rawBytes += bytes;
      for (const bytes of records.storedLengths) sum.storedBytes += bytes;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      sum.unreadable += 1;
    }
  });
  const byEpoch = Array.from(epochs, ([epoch, count]) => ({ epoch, packs: count }));
  return { ...sum, epochs: byEpoch.sort((left, right) => left.epoch - right.epoch) };
}
