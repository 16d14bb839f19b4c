/**
 * Transfers disks as the mover does, in one process, without the CLI: for what the CLI has no option for. Started by the benchmarks.
 * Arguments: the repository, then JSON: `check` (open packs before they are uploaded), `files` (images, all at once), or `made`, a disk that is made up:
 * its GiB, and with `changedPieces` an incremental of that many random pieces of 64 KiB. Prints JSON with the bytes and seconds of the transfers.
 */
import { randomInt } from "node:crypto";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom } from "@holdfast/shared/ports/random";
import { z } from "zod";
import { standaloneHolder, withSession } from "../../mover/hold-session.ts";
import { openRepositoryAt } from "../../mover/open-repository-at.ts";
import { createChunkIndexLoader } from "../../mover/pipeline/chunk-index-loader.ts";
import { transferDisk } from "../../mover/pipeline/transfer-disk.ts";
import { withChanges } from "../../mover/transport/changed-ranges.ts";
import { openImageSource } from "../../mover/transport/image-source.ts";

const pieceBytes = 64 * 1024;
const patternBytes = 32 * 1024 ** 2;

const [url = "", text = "{}"] = process.argv.slice(2);
const request = z
  .strictObject({
    check: z.boolean().default(true),
    files: z.array(z.string()).default([]),
    made: z.strictObject({ gibibytes: z.int() }).optional(),
    changedPieces: z.int().default(0),
    sampleShare: z.number().default(0),
  })
  .parse(JSON.parse(text));
const logger = silentLogger;
const { signal } = new AbortController();
const repository = await openRepositoryAt(url, {
  passphrase: process.env["HOLDFAST_PASSPHRASE"] ?? "",
  clock: systemClock,
  random: systemRandom,
  logger,
});

const results = await withSession(
  {
    kind: "backup",
    holder: standaloneHolder(),
    pins: [],
    repository,
    clock: systemClock,
    logger,
    signal,
  },
  async (session) => {
    const known = await createChunkIndexLoader(repository, { logger }).load(session, signal);
    const transfer = async (reader: DiskReader, diskKey: string, previous?: string) => {
      const started = performance.now();
      const done = await transferDisk({
        repository,
        session,
        reader,
        diskKey,
        ...(previous === undefined ? {} : { previous }),
        ...known,
        sampleShare: request.sampleShare,
        checkSealed: request.check,
        saveCheckpoint: async () => undefined,
        onProgress: () => undefined,
        signal,
        logger,
      });
      return { ...done, seconds: (performance.now() - started) / 1000 };
    };
    if (request.made === undefined) {
      return await Promise.all(
        request.files.map(async (source, disk) => {
          await using reader = await openImageSource({ source, format: "raw" });
          return await transfer(reader, `disk-${disk}`);
        }),
      );
    }
    const sizeBytes = request.made.gibibytes * 1024 ** 3;
    const before = await transfer(madeDisk(sizeBytes, new Map()), "made");
    const changed = new Map<number, Buffer>();
    while (changed.size < request.changedPieces) {
      changed.set(randomInt(sizeBytes / pieceBytes), Buffer.from(systemRandom(pieceBytes)));
    }
    const ranges = [...changed.keys()]
      .sort((left, right) => left - right)
      .map((piece) => ({ offset: piece * pieceBytes, length: pieceBytes }));
    const reader = withChanges({ ...madeDisk(sizeBytes, changed), description: "made up" }, ranges);
    return [await transfer(reader, "made", before.recordKey)];
  },
);
process.stdout.write(
  `${JSON.stringify({
    seconds: Math.max(...results.map(({ seconds }) => seconds)),
    bytesRead: results.reduce((sum, { stats }) => sum + stats.bytesRead, 0),
    bytesStored: results.reduce((sum, { stats }) => sum + stats.bytesStored, 0),
  })}\n`,
);

/** Data everywhere, 32 MiB again and again, so that a disk of any size is in the repository soon; but for the pieces that changed. */
function madeDisk(sizeBytes: number, changed: ReadonlyMap<number, Buffer>): DiskReader {
  const pattern = Buffer.from(madeUpBytes(patternBytes));
  return {
    sizeBytes,
    readsMax: 4,
    readBytesMax: 1024 ** 2,
    async *extents() {
      yield { offset: 0, length: sizeBytes, kind: "data" };
    },
    read: async (offset, into) => {
      for (let at = 0; at < into.length; ) {
        const position = offset + at;
        const inPiece = position % pieceBytes;
        const length = Math.min(pieceBytes - inPiece, into.length - at);
        const from = changed.get(Math.floor(position / pieceBytes));
        const start = from === undefined ? position % patternBytes : inPiece;
        into.set((from ?? pattern).subarray(start, start + length), at);
        at += length;
      }
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** The same in every process and run. */
function madeUpBytes(lengthBytes: number): Uint8Array {
  const words = new Uint32Array(lengthBytes / 4);
  let state = 1;
  for (let index = 0; index < words.length; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[index] = state ^ (state >>> 15);
  }
  return new Uint8Array(words.buffer);
}
