import { availableParallelism } from "node:os";
import { Failure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import type { DiskOfPoint, Repository } from "@holdfast/shared/repository/repository";
import { createChunkFetcher } from "../pipeline/chunk-fetcher.ts";
import { openPointReader } from "../pipeline/point-reader.ts";
import type { NbdDisk } from "./nbd-export.ts";
import { type NbdServer, type NbdServerOptions, startNbdServer } from "./nbd-server.ts";

export type ServePointOptions = Pick<NbdServerOptions, "listen" | "tls"> & {
  readonly repository: Repository;
  readonly pointId: string;
  readonly vmName: string;
  /** Which of the point's disks; each becomes an export by its key. */
  readonly disks: readonly DiskOfPoint[];
  /** Of opened chunks, for all disks together. */
  readonly cacheBytes: number;
  /** Worker threads; 0 works in this thread. Default: one a core, at most 4. */
  readonly workers?: number;
  readonly logger: Logger;
  /** Each time a client was told that it cannot have what it asked for. */
  readonly onDamage: (message: string) => void;
};

const workersMax = 4;

/**
 * Serves disks of a recovery point over NBD, until disposed of. Every chunk is authenticated and hashed before a byte of it is served; what
 * fails that is an input/output error to the client, and told here with its place.
 */
export async function servePoint(o: ServePointOptions): Promise<NbdServer> {
  const { repository, pointId, logger } = o;
  const workers = o.workers ?? Math.min(availableParallelism(), workersMax);
  await using stack = new AsyncDisposableStack();
  const fetcher = stack.use(createChunkFetcher({ repository, cacheBytes: o.cacheBytes, workers }));
  const disks: NbdDisk[] = [];
  for (const disk of o.disks) {
    const record = await repository.readDiskRecord(disk.recordKey);
    if (toHex(record.digest) !== disk.digest) {
      throw new Failure("verification.failed", {
        message: `${disk.recordKey} is not the record that the recovery point was written with`,
      });
    }
    const reader = stack.use(
      await openPointReader({ repository, recordKey: disk.recordKey, fetcher }),
    );
    disks.push({
      name: disk.key,
      description: `disk ${disk.key} of ${o.vmName}, recovery point ${pointId}`,
      sizeBytes: reader.sizeBytes,
      read: reader.read,
      runs: reader.runs,
    });
  }
  const server = stack.use(
    await startNbdServer({
      disks,
      listen: o.listen,
      tls: o.tls,
      logger,
      onReadFailed: (disk, { offset, length, failure }) => {
        const message = `recovery point ${pointId}, disk ${disk}: ${length} bytes at ${offset} cannot be read: ${failure.message}`;
        logger.error("read failed", { pointId, disk, offset, length, code: failure.code, message });
        o.onDamage(message);
      },
    }),
  );
  const all = stack.move();
  return {
    address: server.address,
    served: server.served,
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}
