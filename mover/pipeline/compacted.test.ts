import { leafRange } from "@holdfast/shared/repository/extent-map/disk-records";
import { leafEntries } from "@holdfast/shared/repository/extent-map/leaf";
import { createLeafStore } from "@holdfast/shared/repository/extent-map/leaf-store";
import { readKnownDamage } from "@holdfast/shared/repository/pack/damage";
import { packName } from "@holdfast/shared/repository/pack/pack";
import {
  encodeRelocation,
  type RelocationRow,
  relocationName,
} from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  restore,
  transfer,
  writePoint,
} from "./test-repository.ts";
import { verify } from "./test-verify.ts";

/** By id: where each chunk of a disk lies. */
async function placesOf(repository: Repository, recordKey: string) {
  const record = await repository.readDiskRecord(recordKey);
  const places = new Map<string, RelocationRow["to"]>();
  for (let index = 0; index < record.leaves.count; index += 1) {
    const ref = record.leaves.get(index);
    if (ref === undefined || ref === "hole") continue;
    const place = { index, ...leafRange(record, index) };
    const { leaf } = await createLeafStore(repository).read(ref, place);
    for (const { id, pack, packOffset, storedLength } of leafEntries(leaf)) {
      const { packId, epoch } = pack;
      const to = { packId, epoch, offset: packOffset, storedLength };
      places.set(Buffer.from(id).toString("hex"), to);
    }
  }
  return places;
}

test("packs that are gone because all of them is elsewhere are no damage, and are read in long ranges", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const disk = seededBytes(900_000, 3);
  const first = await transfer(repository, createMemoryReader(disk));
  await writePoint(repository, newPoint(first.recordKey));
  const second = await transfer(repository, createMemoryReader(disk));
  await writePoint(repository, newPoint(second.recordKey, { pointId: "point-2", jobId: "job-2" }));
  // As a compaction leaves it: each pack of the first point is gone, and its chunks are in the second's.
  const from = await placesOf(repository, first.recordKey);
  const to = await placesOf(repository, second.recordKey);
  const session = await beginSession(repository, { kind: "maintenance" });
  const packs = Map.groupBy(from, ([, { packId }]) => packName(packId));
  expect(packs.size).toBeGreaterThan(1);
  for (const [name, chunks] of packs) {
    const packId = chunks[0]?.[1].packId ?? new Uint8Array(16);
    const rows = chunks.flatMap(([id, { offset }]) => {
      const other = to.get(id);
      return other === undefined ? [] : [{ offset, to: other }];
    });
    expect(rows).toHaveLength(chunks.length);
    const relocation = relocationName(packId, session.newId());
    const plain = encodeRelocation({ packId, rows });
    await session.objects.put(relocation, "relocation", plain);
    await store.remove([name]);
  }
  for await (const { key } of store.list("index/")) await store.remove([key]);

  let reads = 0;
  const counting = {
    ...repository,
    store: {
      ...store,
      getRange: (...call: Parameters<typeof store.getRange>) => {
        reads += 1;
        return store.getRange(...call);
      },
    },
  };
  const { bytes } = await restore(counting, first.recordKey, { sizeBytes: disk.length });
  expect(Buffer.compare(bytes, disk)).toBe(0);
  expect(reads).toBeLessThan(from.size);

  const whole = await verify(repository, { session });
  expect([whole.damagedPoints, whole.damagedObjects, whole.harmless]).toEqual([[], [], []]);
  expect(whole.chunksElsewhere).toBe(from.size);
  // Nothing is read twice for it.
  expect(whole.bytesRead).toBeLessThan(1.1 * (whole.whole?.bytesStored ?? 0));
  expect((await readKnownDamage(repository)).places.packs.size).toBe(0);
  const later = await verify(repository, { session, whole: { everyMs: 3_600_000 } });
  expect([later.damagedPoints, later.harmless, later.chunksChecked]).toEqual([[], [], 0]);
});
