import { type Failure, isFailure } from "@holdfast/shared/domain/failure";
import {
  openPackFooter,
  type PackFooter,
  packHeadBytes,
  packName,
  packTailBytes,
  recordId,
} from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { isUnreadable } from "./prepare-leaf.ts";
import type { PackRange } from "./restore-plan.ts";
import type { ChunkChecks } from "./verify-chunks.ts";

/** Whole packs, one after the other in the order in which they are given, in long ranges: every stored byte is read once, the footer too. */
export type PackToRead = { readonly packId: Uint8Array; readonly sizeBytes: number };

export type PackVerdict =
  | "good"
  /** At least one record does not open at its place. */
  | "damaged"
  /** Nothing is known of its records: what lists them does not open, or the pack is gone. */
  | "unknown";

const packsInFlight = 4;
const rangeBytesMax = 8 * 1024 * 1024;
/** Enough for the footer of a pack of 32 MiB with chunks of 32 KiB. */
const tailBytesFirst = 48 * 1024;

/** Resolves when all packs were read, or `mayGoOn` has said no and those begun were read. Damage is given to `onPack`, other failures end it. */
export async function verifyPacks(o: {
  readonly repository: Repository;
  readonly chunks: ChunkChecks;
  readonly packs: Iterable<PackToRead>;
  readonly mayGoOn: (next: PackToRead) => boolean;
  readonly onPack: (pack: PackToRead, verdict: PackVerdict, failure?: Failure) => Promise<void>;
  readonly onUnsteady: (object: string, failure: Failure) => void;
  readonly onBytes: (bytes: number) => void;
  readonly signal: AbortSignal;
}): Promise<void> {
  const packs = o.packs[Symbol.iterator]();
  let isStopped = false;

  async function work(): Promise<void> {
    while (!isStopped) {
      o.signal.throwIfAborted();
      const next = packs.next();
      if (next.done === true || isStopped) return;
      if (!o.mayGoOn(next.value)) {
        isStopped = true;
        return;
      }
      await verifyPack(next.value);
    }
  }

  async function verifyPack(pack: PackToRead): Promise<void> {
    const footer = await readFooter(pack);
    if (isFailure(footer)) {
      o.onBytes(pack.sizeBytes);
      await o.onPack(pack, "unknown", footer);
      return;
    }
    let bad = 0;
    let bytesTold = 0;
    await Promise.all(
      rangesOfPack(pack.packId, footer).map(async (range) => {
        bad += await o.chunks.check(range);
        bytesTold += range.length;
        o.onBytes(range.length);
      }),
    );
    o.onBytes(pack.sizeBytes - bytesTold);
    await o.onPack(pack, bad === 0 ? "good" : "damaged");
  }

  /** What is wrong once and right when it is read again is no damage. */
  async function readFooter(pack: PackToRead): Promise<PackFooter | Failure> {
    let first: Failure | undefined;
    for (;;) {
      try {
        const footer = await readPackEnds(o.repository, pack, o.signal);
        if (first !== undefined) o.onUnsteady(packName(pack.packId), first);
        return footer;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        if (first !== undefined) return error;
        first = error;
      }
    }
  }

  await Promise.all(Array.from({ length: packsInFlight }, work));
}

/** A pack's footer by reading both of its ends. Fails with `object.corrupt`, `object.not-found`. */
export async function readPackEnds(
  { store, secrets }: Pick<Repository, "store" | "secrets">,
  { packId, sizeBytes }: PackToRead,
  signal: AbortSignal,
): Promise<PackFooter> {
  const name = packName(packId);
  const readTail = (length: number): Promise<Uint8Array> =>
    store.getRange(name, { offset: sizeBytes - length, length }, { signal });
  const headLength = Math.min(packHeadBytes, sizeBytes);
  const tailLength = Math.min(tailBytesFirst, sizeBytes);
  const [head, tail] = await Promise.all([
    store.getRange(name, { offset: 0, length: headLength }, { signal }),
    readTail(tailLength),
  ]);
  const { tailBytes } = packTailBytes({ packId, tail, sizeBytes });
  const whole = tailBytes <= tail.length ? tail : await readTail(tailBytes);
  return openPackFooter({ secrets, packId, head, tail: whole, sizeBytes });
}

/** All records, of whatever kind, as ranges that are read and opened together. */
function rangesOfPack(packId: Uint8Array, { epoch, records }: PackFooter): readonly PackRange[] {
  const ranges: PackRange[] = [];
  let first = 0;
  let raw = 0;
  const offsetOf = (index: number): number => records.offsets[index] ?? 0;
  const endOf = (index: number): number => offsetOf(index) + (records.storedLengths[index] ?? 0);
  const close = (end: number): void => {
    if (end === first) return;
    const chunks = Array.from({ length: end - first }, (_, at) => ({
      offset: offsetOf(first + at),
      storedLength: records.storedLengths[first + at] ?? 0,
      length: records.rawLengths[first + at] ?? 0,
      id: recordId(records, first + at),
      diskOffsets: [],
    }));
    const offset = offsetOf(first);
    ranges.push({ packId, epoch, offset, length: endOf(end - 1) - offset, chunks });
    first = end;
    raw = 0;
  };
  for (let index = 0; index < records.count; index += 1) {
    const length = records.rawLengths[index] ?? 0;
    if (endOf(index) - offsetOf(first) > rangeBytesMax || raw + length > rangeBytesMax)
      close(index);
    raw += length;
  }
  close(records.count);
  return ranges;
}
