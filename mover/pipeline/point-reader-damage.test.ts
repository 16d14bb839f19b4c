import { randomBytes } from "node:crypto";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { expect, test } from "vitest";
import { createMemoryReader } from "./memory-disk.ts";
import { openPointReader } from "./point-reader.ts";
import { createTestRepository, transfer } from "./test-repository.ts";

test("one damaged chunk fails reads of its own bytes, not of those that lie beside it in the pack", async () => {
  const disk = new Uint8Array(randomBytes(400_000));
  const memory = createMemoryObjectStore();
  let flipAt: { readonly key: string; readonly offset: number } | undefined;
  const store: ObjectStore = {
    ...memory,
    getRange: async (key, range, call) => {
      const bytes = Uint8Array.from(await memory.getRange(key, range, call));
      if (flipAt?.key !== key) return bytes;
      const at = flipAt.offset - range.offset;
      if (at >= 0 && at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ 1;
      return bytes;
    },
  };
  const repository = await createTestRepository(store);
  const { recordKey } = await transfer(repository, createMemoryReader(disk));
  const packs: { readonly key: string; readonly sizeBytes: number }[] = [];
  for await (const pack of memory.list("packs/")) packs.push(pack);
  const [largest] = packs.sort((left, right) => right.sizeBytes - left.sizeBytes);
  flipAt = { key: largest?.key ?? "", offset: Math.floor((largest?.sizeBytes ?? 0) / 2) };
  await using reader = await openPointReader({ repository, recordKey });
  const blocks = Array.from({ length: Math.floor(disk.length / 4096) }, (_, index) => index * 4096);
  const results = await Promise.allSettled(
    blocks.map(async (offset) => {
      const into = new Uint8Array(4096);
      await reader.read(offset, into);
      expect(Buffer.compare(into, disk.subarray(offset, offset + 4096))).toBe(0);
    }),
  );
  const failed = results.filter(({ status }) => status === "rejected");
  // A chunk has at most 64 KiB; the pack has 256 KiB.
  expect(failed.length).toBeGreaterThan(0);
  expect(failed.length).toBeLessThanOrEqual(17);
  for (const result of failed) {
    expect(result).toMatchObject({ reason: { code: "object.corrupt" } });
  }
});
