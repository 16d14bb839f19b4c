import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Repository } from "@holdfast/shared/repository/repository";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openPointReader } from "./point-reader.ts";
import { openTestRepository } from "./test-repository.ts";
import { flip, replace, stored, verify } from "./test-verify.ts";

test("a store that does not answer is no damage", async () => {
  const { store } = await stored();
  const down = { ...store };
  const repository = await openTestRepository({
    ...down,
    getRange: async () => {
      throw new Failure("storage.unreachable", { message: "down" });
    },
  });
  await expect(verify(repository)).rejects.toSatisfy((error) =>
    isFailure(error, "storage.unreachable"),
  );
});

test("a store that fails at any moment ends the run; nothing of it is called damage", async () => {
  const { store, repository } = await stored();
  const clean = { ...(await verify(repository)), seconds: 0 };
  const { secrets } = repository;
  let failAt = 0;
  let calls = 0;
  const count = (): void => {
    calls += 1;
    if (calls === failAt) throw new Failure("storage.unreachable", { message: "down" });
  };
  const failing: ObjectStore = {
    ...store,
    get: async (...call) => {
      count();
      return store.get(...call);
    },
    getRange: async (...call) => {
      count();
      return store.getRange(...call);
    },
    list: (...call) => {
      count();
      return store.list(...call);
    },
  };
  const weak = await openTestRepository(failing);
  expect(weak.secrets).toEqual(secrets);
  for (failAt = 1; ; failAt += 1) {
    calls = 0;
    try {
      expect({ ...(await verify(weak)), seconds: 0 }).toEqual(clean);
      break;
    } catch (error) {
      if (!isFailure(error, "storage.unreachable")) throw error;
    }
  }
  expect(failAt).toBeGreaterThan(20);
});

test.each([0, 1, 5, 8, 11])(
  "bytes that come wrong only once (read %i) are no damage, but are told",
  async (read) => {
    const { store } = await stored();
    let reads = 0;
    const repository = await openTestRepository({
      ...store,
      getRange: async (key, range, options) => {
        const bytes = await store.getRange(key, range, options);
        if (!key.startsWith("packs/") || range.length < 100) return bytes;
        reads += 1;
        return reads === read + 1 ? flip(bytes, bytes.length - 50) : bytes;
      },
    });
    const report = await verify(repository);
    expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
    expect(report.harmless.map(({ object }) => object)).toEqual([
      expect.stringMatching(/^packs\//),
    ]);
  },
);

test("exactly what cannot be read is named, wherever packs are damaged", async () => {
  const { store, repository, first, second, third } = await stored();
  const points = { "point-1": first, "point-2": second, "point-3": third };
  const packs: string[] = [];
  for await (const { key } of store.list("packs/")) packs.push(key);
  const place = fc.record({
    pack: fc.constantFrom(...packs),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(place, { minLength: 1, maxLength: 4 }), async (flips) => {
      const before = new Map<string, Uint8Array>();
      for (const { pack, at } of flips) {
        const bytes = await store.get(pack);
        if (!before.has(pack)) before.set(pack, bytes);
        await replace(store, pack, flip(bytes, Math.floor(at * (bytes.length - 1))));
      }
      try {
        const { damagedPoints } = await verify(repository);
        for (const [pointId, { recordKey }] of Object.entries(points)) {
          const disk = damagedPoints.find((point) => point.pointId === pointId)?.disks[0];
          const named = blocksOf(disk?.ranges ?? []);
          expect({ pointId, blocks: named }).toEqual({
            pointId,
            blocks: await unreadable(repository, recordKey),
          });
        }
      } finally {
        for (const [pack, bytes] of before) await replace(store, pack, bytes);
      }
    }),
    { numRuns: 12 },
  );
});

const blockBytes = 4096;

function blocksOf(
  ranges: readonly { readonly offset: number; readonly length: number }[],
): number[] {
  return ranges.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / blockBytes) }, (_, at) => offset / blockBytes + at),
  );
}

/** By the other reader of points, block by block; a chunk is never shorter. */
async function unreadable(repository: Repository, recordKey: string): Promise<number[]> {
  const reader = await openPointReader({ repository, recordKey });
  const bad: number[] = [];
  for (let at = 0; at < reader.sizeBytes; at += blockBytes) {
    const into = new Uint8Array(Math.min(blockBytes, reader.sizeBytes - at));
    try {
      await reader.read(at, into);
    } catch (error) {
      if (!isFailure(error, "object.corrupt")) throw error;
      bad.push(at / blockBytes);
    }
  }
  return bad;
}
