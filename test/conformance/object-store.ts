import { isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testObjectLocks } from "./object-store-locks.ts";

/** One implementation under the suite. `open` gives a store that is empty; the suite closes it at the end. */
export type ObjectStoreHarness = {
  readonly name: string;
  readonly open: () => Promise<OpenedObjectStore>;
  /** Lower for stores behind a network. */
  readonly propertyRuns?: number;
  /** The time that counts for the store's locks, where it is not the machine's. */
  readonly nowMs?: () => number;
};
export type OpenedObjectStore = {
  readonly store: ObjectStore;
  readonly close: () => Promise<void>;
};

/** What the port `ObjectStore` promises, in code. */
export function describeObjectStore(harness: ObjectStoreHarness): void {
  describe(`object store: ${harness.name}`, () => {
    let opened: OpenedObjectStore;
    let store: ObjectStore;
    beforeAll(async () => {
      opened = await harness.open();
      store = opened.store;
    });
    afterAll(() => opened.close());

    test("get gives back what put stored", async () => {
      await store.put("bytes/all", everyByte);
      expect(await store.get("bytes/all")).toEqual(everyByte);
      expect(await store.head("bytes/all")).toMatchObject({ key: "bytes/all", sizeBytes: 256 });
    });

    test("an empty object is an object", async () => {
      await store.put("bytes/none", new Uint8Array(0));
      expect(await store.get("bytes/none")).toEqual(new Uint8Array(0));
      expect(await store.getRange("bytes/none", { offset: 0, length: 0 })).toEqual(
        new Uint8Array(0),
      );
      expect(await keysOf(store, "bytes/none")).toEqual(["bytes/none"]);
    });

    test("an object of many megabytes comes back whole", async () => {
      const bytes = pattern(20 * 1024 * 1024 + 17, 3);
      await store.put("bytes/large", bytes);
      expect(Buffer.compare(await store.get("bytes/large"), bytes)).toBe(0);
      const range = { offset: 8 * 1024 * 1024 - 3, length: 9 * 1024 * 1024 };
      const part = bytes.subarray(range.offset, range.offset + range.length);
      expect(Buffer.compare(await store.getRange("bytes/large", range), part)).toBe(0);
    });

    test("what is put or got is a copy", async () => {
      const bytes = Uint8Array.of(1, 2, 3);
      await store.put("bytes/copy", bytes);
      bytes[0] = 9;
      const first = await store.get("bytes/copy");
      first[1] = 9;
      expect(await store.get("bytes/copy")).toEqual(Uint8Array.of(1, 2, 3));
      // A Buffer's own slice() is no copy.
      const buffer = Buffer.of(1, 2, 3);
      await store.put("bytes/buffer", buffer);
      buffer[0] = 9;
      (await store.get("bytes/buffer"))[1] = 9;
      (await store.getRange("bytes/buffer", { offset: 0, length: 3 }))[2] = 9;
      expect([...(await store.get("bytes/buffer"))]).toEqual([1, 2, 3]);
    });

    test("a part of a larger buffer is stored without its surroundings", async () => {
      await store.put("bytes/view", everyByte.subarray(10, 13));
      expect(await store.get("bytes/view")).toEqual(Uint8Array.of(10, 11, 12));
    });

    test("bytes in memory that threads share are stored as they are", async () => {
      const shared = new Uint8Array(new SharedArrayBuffer(200_000));
      shared.set(pattern(150_000, 1), 1000);
      await store.put("bytes/shared", shared.subarray(1000, 151_000));
      expect(await store.get("bytes/shared")).toEqual(pattern(150_000, 1));
    });

    test("put never overwrites", async () => {
      await store.put("taken", Uint8Array.of(1));
      await expectFailure(store.put("taken", Uint8Array.of(2)), "object.exists");
      await expectFailure(store.put("taken", Uint8Array.of(1)), "object.exists");
      expect(await store.get("taken")).toEqual(Uint8Array.of(1));
    });

    test("of racing writers exactly one wins, and its bytes stay", async (context) => {
      context.skip(!store.supports.conditionalPut, "this store has no conditional put");
      const writers = Array.from({ length: 8 }, (_, index) => pattern(100_000, index));
      const outcomes = await Promise.allSettled(writers.map((bytes) => store.put("race", bytes)));
      const winners = writers.filter((_, index) => outcomes[index]?.status === "fulfilled");
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") {
          expect(isFailure(outcome.reason, "object.exists")).toBe(true);
        }
      }
      expect(await store.get("race")).toEqual(winners[0]);
    });

    test("a range is exactly the bytes asked for", async () => {
      await store.put("ranges", everyByte);
      for (const [offset, length] of [
        [0, 1],
        [0, 256],
        [255, 1],
        [100, 56],
        [7, 0],
      ] as const) {
        const bytes = await store.getRange("ranges", { offset, length });
        expect(bytes).toEqual(everyByte.subarray(offset, offset + length));
      }
    });

    test("a range beyond the end is corrupt, never short", async () => {
      await store.put("short", everyByte);
      await expectFailure(store.getRange("short", { offset: 200, length: 57 }), "object.corrupt");
      await expectFailure(store.getRange("short", { offset: 256, length: 1 }), "object.corrupt");
      await expectFailure(store.getRange("short", { offset: 9999, length: 5 }), "object.corrupt");
    });

    test("a range that is no range is refused", async () => {
      await store.put("range-refused", everyByte);
      for (const [offset, length] of [
        [-1, 2],
        [0, -1],
        [0.5, 1],
        [0, Number.NaN],
        [2 ** 53, 1],
      ] as const) {
        await expectFailure(store.getRange("range-refused", { offset, length }), "input.invalid");
      }
    });

    test("what does not exist is named as such", async () => {
      await expectFailure(store.get("missing/object"), "object.not-found");
      await expectFailure(
        store.getRange("missing/object", { offset: 0, length: 1 }),
        "object.not-found",
      );
      expect(await store.head("missing/object")).toBeUndefined();
      expect(await keysOf(store, "missing/")).toEqual([]);
    });

    test("a folder is not an object", async () => {
      await store.put("folder/inside/object", Uint8Array.of(1));
      expect(await store.head("folder/inside")).toBeUndefined();
      await expectFailure(store.get("folder/inside"), "object.not-found");
      await store.remove(["folder/inside"]);
      expect(await keysOf(store, "folder/")).toEqual(["folder/inside/object"]);
    });

    test("list gives every key with the prefix, with sizes, in byte order", async () => {
      const keys = ["a-b", "a.txt", "a/b", "a/b-c", "a0", "aB", "ab", "b/c/d", "b/c0", "b/c-1"];
      for (const [index, key] of keys.entries()) {
        await store.put(`order/${key}`, new Uint8Array(index));
      }
      const sorted = keys.map((key) => `order/${key}`).sort(byBytes);
      const listed = await collect(store.list("order/"));
      expect(listed.map((head) => head.key)).toEqual(sorted);
      for (const head of listed) {
        expect(head.sizeBytes).toBe(keys.indexOf(head.key.slice("order/".length)));
      }
      const within = (prefix: string) => sorted.filter((key) => key.startsWith(prefix));
      for (const prefix of [
        "order/a",
        "order/a/",
        "order/a/b",
        "order/b/c",
        "order/b/c/d",
        "ord",
      ]) {
        expect(await keysOf(store, prefix)).toEqual(within(prefix));
      }
      expect(await keysOf(store, "order/b/c/d/")).toEqual([]);
      expect((await keysOf(store, "")).filter((key) => key.startsWith("order/"))).toEqual(sorted);
    });

    test("list may be left early", async () => {
      for (const name of ["1", "2", "3"]) await store.put(`early/${name}`, new Uint8Array(1));
      for await (const head of store.list("early/")) {
        expect(head.key).toBe("early/1");
        break;
      }
    });

    test("what was removed is gone, its name is free, and the rest stays", async () => {
      for (const name of ["1", "2", "3"]) await store.put(`removal/${name}`, new Uint8Array(1));
      await store.remove(["removal/1", "removal/3", "removal/never-there"]);
      expect(await keysOf(store, "removal/")).toEqual(["removal/2"]);
      expect(await store.head("removal/1")).toBeUndefined();
      await store.remove(["removal/1"]);
      await store.remove([]);
      await store.put("removal/1", Uint8Array.of(7));
      expect(await store.get("removal/1")).toEqual(Uint8Array.of(7));
    });

    test("a removal with one bad key removes nothing", async () => {
      await store.put("kept", Uint8Array.of(1));
      for (const bad of ["", "../kept", "/"]) {
        await expectFailure(store.remove(["kept", bad]), "input.invalid");
      }
      expect(await store.get("kept")).toEqual(Uint8Array.of(1));
    });

    test("keys that are no keys are refused everywhere", async () => {
      for (const key of keysRefused) {
        await expectFailure(store.put(key, new Uint8Array(1)), "input.invalid");
        await expectFailure(store.get(key), "input.invalid");
        await expectFailure(store.getRange(key, { offset: 0, length: 1 }), "input.invalid");
        await expectFailure(store.head(key), "input.invalid");
        await expectFailure(store.remove([key]), "input.invalid");
      }
      for (const prefix of ["../", "a/../b", "/", "a//b", "a b", "./a"]) {
        await expectFailure(keysOf(store, prefix), "input.invalid");
      }
    });

    test("the longest key is a key", async () => {
      const longest = `${"k".repeat(255)}/${"k".repeat(250)}/${"k".repeat(5)}`;
      expect(longest).toHaveLength(512);
      await store.put(longest, Uint8Array.of(1));
      expect(await keysOf(store, "kkk")).toEqual([longest]);
    });

    test("a call that was told to stop stops with the signal's reason", async () => {
      await store.put("stop", Uint8Array.of(1));
      const reason = new Error("told to stop");
      const signal = AbortSignal.abort(reason);
      const calls = [
        () => store.put("stop-2", new Uint8Array(1), { signal }),
        () => store.get("stop", { signal }),
        () => store.getRange("stop", { offset: 0, length: 1 }, { signal }),
        () => store.head("stop", { signal }),
        () => store.remove(["stop"], { signal }),
        () => collect(store.list("stop", { signal })),
      ];
      for (const call of calls) await expect(call()).rejects.toBe(reason);
      expect(await keysOf(store, "stop")).toEqual(["stop"]);
    });

    test("any history of puts, gets, lists and removals is that of a map", async () => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(operation, { maxLength: 30 }), async (operations) => {
          run += 1;
          await checkAgainstMap(store, `history/${run}/`, operations);
        }),
        { numRuns: harness.propertyRuns ?? 30 },
      );
    });

    testObjectLocks(() => store, harness.nowMs ?? Date.now);
  });
}

const everyByte = Uint8Array.from({ length: 256 }, (_, index) => index);

const keysRefused = [
  "",
  "/a",
  "a/",
  "a//b",
  ".",
  "..",
  "a/../b",
  "a/./b",
  "../a",
  "a b",
  "ä",
  "a\\b",
  "a\u0000b",
  "a\nb",
  "a%2fb",
  "k".repeat(513),
  "k".repeat(256),
  ".tmp-mine",
  "a/.tmp-mine/b",
];

const name = fc.constantFrom("a", "b", "a-b", "ab", "d/a", "d/b", "d/e/f", "d-e", "d.e");
const operation = fc.oneof(
  fc.record({ kind: fc.constant("put" as const), name, bytes: fc.uint8Array({ maxLength: 64 }) }),
  fc.record({ kind: fc.constant("get" as const), name }),
  fc.record({ kind: fc.constant("remove" as const), name }),
  fc.record({ kind: fc.constant("list" as const), prefix: fc.constantFrom("", "a", "d", "d/") }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

async function checkAgainstMap(
  store: ObjectStore,
  folder: string,
  operations: readonly Operation[],
): Promise<void> {
  const model = new Map<string, Uint8Array>();
  for (const step of operations) {
    if (step.kind === "list") {
      const prefix = folder + step.prefix;
      const expected = [...model.keys()].filter((key) => key.startsWith(prefix)).sort(byBytes);
      expect(await keysOf(store, prefix)).toEqual(expected);
      continue;
    }
    const key = folder + step.name;
    const known = model.get(key);
    if (step.kind === "remove") {
      await store.remove([key]);
      model.delete(key);
    } else if (step.kind === "get") {
      if (known === undefined) await expectFailure(store.get(key), "object.not-found");
      else expect(await store.get(key)).toEqual(known);
    } else if (known === undefined) {
      await store.put(key, step.bytes);
      model.set(key, step.bytes);
    } else {
      await expectFailure(store.put(key, step.bytes), "object.exists");
    }
  }
}

async function keysOf(store: ObjectStore, prefix: string): Promise<readonly string[]> {
  return (await collect(store.list(prefix))).map((head) => head.key);
}

async function collect<T>(items: AsyncIterable<T>): Promise<readonly T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function expectFailure(work: Promise<unknown>, code: string): Promise<void> {
  const error: unknown = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error, `expected ${code}`).toMatchObject({ name: "Failure", code });
}

function byBytes(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}

function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed + 1;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}
