import { expect, test } from "vitest";
import { Failure } from "../../domain/failure.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { decodeIndexSegment, encodeIndexSegment } from "../index/index-segment.ts";
import { decodeIndexShard, encodeIndexShard } from "../index/index-shard.ts";
import { createObjects } from "../objects.ts";
import { rewriteIndexObject } from "./index-without.ts";

const secrets = {
  repositoryId: new Uint8Array(16).fill(1),
  identity: new Uint8Array(32).fill(2),
  masters: new Map([[1, new Uint8Array(32).fill(3)]]),
  activeEpoch: 1,
};
const store = createMemoryObjectStore();
const objects = createObjects({ store, secrets, random: systemRandom });
const pack = (number: number): Uint8Array => new Uint8Array(16).fill(number);
const hex = (number: number): string => number.toString(16).padStart(32, "0");
let names = 1000;

function rewrite(name: string, doomed: readonly number[], its = objects) {
  const isDoomed = (packId: Uint8Array): boolean => doomed.includes(packId[0] ?? -1);
  names += 1;
  const newId = (): string => hex(names);
  const noSpace: string[] = [];
  const onNoSpace = (key: string): void => void noSpace.push(key);
  return rewriteIndexObject({ objects: its, isDoomed, newId, onNoSpace }, name);
}

function indexed(number: number) {
  const count = 2;
  return {
    packId: pack(number),
    epoch: 1,
    records: {
      count,
      ids: new Uint8Array(count * 32).fill(number),
      offsets: Uint32Array.of(64, 100),
      storedLengths: Uint32Array.of(36, 40),
      rawLengths: Uint32Array.of(90, 91),
      kinds: new Uint8Array(count),
    },
  };
}

test("of a writer's segment the doomed packs are left out, and nothing else changes", async () => {
  const name = `index/${hex(1)}`;
  await objects.put(name, "index-segment", encodeIndexSegment([1, 2, 3].map(indexed)));
  expect(await rewrite(name, [7])).toEqual({ state: "kept" });
  const outcome = await rewrite(name, [2]);
  if (outcome.state !== "replaced") throw new Error(outcome.state);
  const bytes = await objects.get(outcome.replacedBy ?? "", "index-segment");
  expect(encodeIndexSegment(decodeIndexSegment(bytes))).toEqual(
    encodeIndexSegment([1, 3].map(indexed)),
  );
  expect(await rewrite(name, [1, 2, 3])).toEqual({ state: "replaced", replacedBy: undefined });
});

test("of a merged shard the rows of doomed packs are left out, in its order and under its prefix", async () => {
  const place = { bits: 2, prefix: 1 };
  const name = `index/${hex(2)}-2-1`;
  const ids = new Uint8Array(5 * 16);
  for (let row = 0; row < 5; row += 1) ids.set([0x40 + row], row * 16);
  const shard = {
    packs: [1, 2, 3].map((number) => ({ packId: pack(number), epoch: number })),
    count: 5,
    ids,
    packNumbers: Uint32Array.of(2, 0, 1, 2, 0),
    offsets: Uint32Array.of(10, 20, 30, 40, 50),
    storedLengths: Uint32Array.of(1, 2, 3, 4, 5),
  };
  await objects.put(name, "index-segment", encodeIndexShard(shard));
  const outcome = await rewrite(name, [1]);
  if (outcome.state !== "replaced") throw new Error(outcome.state);
  expect(outcome.replacedBy).toMatch(/^index\/[0-9a-f]{32}-2-1$/);
  const bytes = await objects.get(outcome.replacedBy ?? "", "index-segment");
  expect(decodeIndexShard(bytes, place)).toMatchObject({
    count: 3,
    packs: [{ epoch: 2 }, { epoch: 3 }],
    packNumbers: Uint32Array.of(1, 0, 1),
    offsets: Uint32Array.of(10, 30, 40),
    storedLengths: Uint32Array.of(1, 3, 4),
  });
});

test("what does not open is told; what is gone was replaced by another; without space it goes without", async () => {
  const name = `index/${hex(3)}`;
  expect(await rewrite(name, [1])).toEqual({ state: "kept" });
  await store.put(name, new Uint8Array(200));
  expect(await rewrite(name, [1])).toMatchObject({ state: "unreadable" });
  const full = {
    ...objects,
    put: async (): Promise<void> => {
      throw new Failure("storage.no-space", { message: "full" });
    },
  };
  const outcome = await rewrite(`index/${hex(1)}`, [2], full);
  expect(outcome).toEqual({ state: "replaced", replacedBy: undefined });
});
