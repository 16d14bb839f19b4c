import type { VerifyReport } from "@holdfast/shared/contracts/standalone";
import type { Extent } from "@holdfast/shared/domain/extent";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes, writePieces } from "./test-data.ts";
import {
  createTestRepository,
  newPoint,
  smallSettings,
  transfer,
  writePoint,
} from "./test-repository.ts";
import { type VerifyOptions, verifyRepository } from "./verify-repository.ts";

export const { leafBytes } = smallSettings;
export const sizeBytes = 4 * leafBytes + 5000;

export function verify(
  repository: Repository,
  o: Partial<VerifyOptions> = {},
): Promise<VerifyReport> {
  return verifyRepository({
    repository,
    share: 1,
    onProgress: () => undefined,
    signal: new AbortController().signal,
    workers: 0,
    logger: silentLogger,
    ...o,
  });
}

/**
 * Two points of one VM, the second with another begin of the disk, and one of another VM. Leaf 3 of the first VM is a hole.
 */
export async function stored() {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const disk = writePieces(new Uint8Array(sizeBytes), [
    { at: 0, length: 3 * leafBytes, seed: 1 },
    { at: 4 * leafBytes, length: 5000, seed: 2 },
  ]);
  const save = async (bytes: Uint8Array, vm: string, number: number, previous?: string) => {
    const more = previous === undefined ? {} : { previous };
    const extents: Extent[] = [
      { offset: 0, length: leafBytes, kind: "data" },
      { offset: leafBytes, length: sizeBytes - leafBytes, kind: "unchanged" },
    ];
    const reader = createMemoryReader(bytes, previous === undefined ? {} : { extents });
    const { recordKey } = await transfer(repository, reader, more);
    const name = { vmKey: vm, vmName: vm, pointId: `point-${number}`, jobId: `job-${number}` };
    const { rootKey } = await writePoint(repository, newPoint(recordKey, name));
    return { recordKey, rootKey, record: await repository.readDiskRecord(recordKey) };
  };
  const first = await save(disk, "vm-1", 1);
  const changed = Uint8Array.from(disk);
  changed.set(seededBytes(40_000, 9), 0);
  const second = await save(changed, "vm-1", 2, first.recordKey);
  const third = await save(seededBytes(100_000, 5), "vm-2", 3);
  return { store, repository, first, second, third };
}

export function flip(bytes: Uint8Array, at: number): Uint8Array {
  const flipped = Uint8Array.from(bytes);
  flipped[at] = (flipped[at] ?? 0) ^ 4;
  return flipped;
}

export async function replace(store: ObjectStore, name: string, bytes: Uint8Array | undefined) {
  await store.remove([name]);
  if (bytes !== undefined) await store.put(name, bytes);
}

/** Point, disk and ranges; `metadata` where that cannot be read. */
export function told({ damagedPoints }: VerifyReport): unknown[] {
  return damagedPoints.map(({ pointId, metadata, disks }) => [
    pointId,
    ...(metadata === undefined ? [] : ["metadata"]),
    ...disks.flatMap(({ disk, ranges }) => [
      disk,
      ...ranges.map(({ offset, length }) => [offset, length]),
    ]),
  ]);
}

export const objectsOf = ({ damagedObjects }: Pick<VerifyReport, "damagedObjects">): string[] =>
  damagedObjects.map(({ object }) => object);
