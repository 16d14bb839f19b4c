import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { z } from "zod";

/** A whole small repository as one JSON file: what a release has written, kept for ever. */
export const GoldenRepository = z.object({
  /** The format, and what wrote it. */
  madeBy: z.string(),
  passphrase: z.string(),
  recoveryWords: z.string(),
  /** By `vm/point`. */
  points: z.record(z.string(), z.object({ sizeBytes: z.int(), sha256: z.string() })),
  /** Name to base64. */
  objects: z.record(z.string(), z.string()),
});
export type GoldenRepository = z.infer<typeof GoldenRepository>;

export function readGolden(folder: string): GoldenRepository {
  const file = new URL(`${folder}/repository.json`, import.meta.url);
  return GoldenRepository.parse(JSON.parse(readFileSync(file, "utf8")));
}

export async function storeOf(golden: GoldenRepository): Promise<ObjectStore> {
  const store = createMemoryObjectStore();
  for (const [name, text] of Object.entries(golden.objects)) {
    await store.put(name, Buffer.from(text, "base64"));
  }
  return store;
}

export const sha256 = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");
