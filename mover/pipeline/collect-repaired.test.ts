import { silentLogger } from "@holdfast/shared/ports/logger";
import { readVerified } from "@holdfast/shared/repository/maintenance/verified";
import { readKnownDamage } from "@holdfast/shared/repository/pack/damage";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { repairRepository } from "./repair-repository.ts";
import { collectNow } from "./test-collect.ts";
import { seededBytes } from "./test-data.ts";
import {
  beginSession,
  createTestRepository,
  newPoint,
  restore,
  transfer,
  writePoint,
} from "./test-repository.ts";
import { replace, verify } from "./test-verify.ts";

const disk = seededBytes(400_000, 3);
const signal = new AbortController().signal;

async function save(repository: Repository, number: number) {
  const session = await beginSession(repository);
  const { recordKey } = await transfer(repository, createMemoryReader(disk), { session });
  const names = { pointId: `point-${number}`, jobId: `job-${number}`, vmKey: `vm-${number}` };
  const { rootKey } = await writePoint(repository, newPoint(recordKey, names), session);
  return { recordKey, rootKey };
}

async function inSession<T>(
  repository: Repository,
  work: (session: Awaited<ReturnType<typeof beginSession>>) => Promise<T>,
): Promise<T> {
  const session = await beginSession(repository, { kind: "maintenance" });
  const result = await work(session);
  await session.abort();
  return result;
}

test("what repair found in a point that goes stays for the point that it healed; notes stay as well", async () => {
  const store = createMemoryObjectStore();
  const repository = await createTestRepository(store);
  const first = await save(repository, 1);
  let largest = { key: "", sizeBytes: 0 };
  for await (const head of store.list("packs/")) {
    if (head.sizeBytes > largest.sizeBytes) largest = head;
  }
  const second = await save(repository, 2);
  await replace(store, largest.key, undefined);
  await inSession(repository, (session) => verify(repository, { session }));
  const repaired = await inSession(repository, (session) =>
    repairRepository({
      repository,
      session,
      readAll: false,
      onProgress: () => undefined,
      onSearch: () => undefined,
      signal,
      workers: 0,
      logger: silentLogger,
    }),
  );
  expect(repaired).toMatchObject({ damagedPoints: [], recordsFound: repaired.recordsBad });

  const collected = await collectNow(repository, { expire: [second.rootKey] });
  expect(collected.state).toBe("done");
  expect(collected.garbage.objects).toBeGreaterThan(0);
  const { bytes } = await restore(repository, first.recordKey, { sizeBytes: disk.length });
  expect(Buffer.compare(bytes, disk)).toBe(0);
  const after = await verify(repository);
  expect([after.points, after.damagedPoints, after.damagedObjects]).toEqual([1, [], []]);
  // What was remembered is still there, and what it replaced is not.
  const verified = await readVerified(repository, () => undefined);
  expect(verified.current.length).toBeGreaterThan(0);
  const damage = await readKnownDamage(repository);
  expect([verified.replaced, damage.replaced]).toEqual([[], []]);
  expect(damage.recordNames.length).toBeLessThan(2);
});
