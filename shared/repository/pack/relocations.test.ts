import fc from "fast-check";
import { expect, test } from "vitest";
import { Failure, isFailure } from "../../domain/failure.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { sealObject } from "../format/sealed-object.ts";
import type { RepositorySecrets } from "../keys/secrets.ts";
import {
  createRelocations,
  decodeRelocation,
  encodeRelocation,
  type RelocationRow,
  relocationName,
} from "./relocations.ts";

const secrets: RepositorySecrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const packId = fc.uint8Array({ minLength: 16, maxLength: 16 });
const row = fc.record({
  offset: u32,
  to: fc.record({ packId, epoch: u32, offset: u32, storedLength: u32 }),
});

let used = 0;
async function put(
  store: ReturnType<typeof createMemoryObjectStore>,
  from: Uint8Array,
  rows: readonly RelocationRow[],
): Promise<string> {
  used += 1;
  const name = relocationName(from, new Uint8Array(16).fill(used));
  const plain = encodeRelocation({ packId: from, rows });
  const random = (length: number): Uint8Array => new Uint8Array(length).fill(used);
  await store.put(name, sealObject({ secrets, type: "relocation", name, plain, random }));
  return name;
}

const pack = (number: number): Uint8Array => new Uint8Array(16).fill(100 + number);
const at = (number: number, offset: number) => ({
  packId: pack(number),
  epoch: 1,
  offset,
  storedLength: 50,
});

test("any relocation comes back as it was, in the order of offsets", () => {
  fc.assert(
    fc.property(packId, fc.array(row), (from, rows) => {
      const decoded = decodeRelocation(encodeRelocation({ packId: from, rows }));
      const expected = rows.toSorted((left, right) => left.offset - right.offset);
      expect(decoded.packId).toEqual(from);
      expect(decoded.rows).toEqual(expected);
    }),
  );
});

test("any bytes decode or are damage", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeRelocation(bytes);
      } catch (error) {
        expect(isFailure(error, "object.corrupt")).toBe(true);
      }
    }),
  );
  const good = encodeRelocation({ packId: pack(1), rows: [{ offset: 64, to: at(2, 64) }] });
  for (let cut = 0; cut < good.length; cut += 1) {
    expect(() => decodeRelocation(good.subarray(0, cut))).toThrow();
  }
});

test("a record is followed over several moves and relocations, also in a circle", async () => {
  const store = createMemoryObjectStore();
  await put(store, pack(1), [{ offset: 64, to: at(2, 64) }]);
  await put(store, pack(1), [
    { offset: 64, to: at(3, 900) },
    { offset: 114, to: at(3, 64) },
  ]);
  await put(store, pack(2), [{ offset: 64, to: at(4, 500) }]);
  await put(store, pack(4), [{ offset: 500, to: at(1, 64) }]);
  const { find } = createRelocations({ store, secrets });
  expect(new Set(await find(pack(1), 64))).toEqual(new Set([at(2, 64), at(3, 900), at(4, 500)]));
  expect(await find(pack(1), 114)).toEqual([at(3, 64)]);
  expect(await find(pack(1), 115)).toEqual([]);
  expect(await find(pack(9), 64)).toEqual([]);
});

test("what cannot be read, or is another pack's, is left out; a store that fails is not taken for that", async () => {
  const store = createMemoryObjectStore();
  await put(store, pack(1), [{ offset: 64, to: at(2, 64) }]);
  const other = await put(store, pack(5), [{ offset: 64, to: at(6, 64) }]);
  const planted = relocationName(pack(1), new Uint8Array(16).fill(99));
  await store.put(planted, await store.get(other));
  await store.put(relocationName(pack(1), new Uint8Array(16).fill(98)), new Uint8Array(5));
  expect(await createRelocations({ store, secrets }).find(pack(1), 64)).toEqual([at(2, 64)]);
  const down = {
    ...store,
    get: async () => {
      throw new Failure("storage.unreachable", { message: "down" });
    },
  };
  const finding = createRelocations({ store: down, secrets }).find(pack(1), 64);
  await expect(finding).rejects.toMatchObject({ code: "storage.unreachable" });
});
