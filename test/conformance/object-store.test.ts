import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createDirectoryObjectStore } from "@holdfast/shared/storage/directory/directory-object-store";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import {
  describeObjectStore,
  type ObjectStoreHarness,
  type OpenedObjectStore,
} from "./object-store.ts";

const harnesses: readonly ObjectStoreHarness[] = [
  { name: "memory", open: openMemory },
  { name: "directory", open: () => openDirectory({ hardLinks: true }) },
  { name: "directory without hard links", open: () => openDirectory({ hardLinks: false }) },
];
for (const harness of harnesses) describeObjectStore(harness);

async function openMemory(): Promise<OpenedObjectStore> {
  return { store: createMemoryObjectStore(), close: async () => undefined };
}

async function openDirectory(options: { readonly hardLinks: boolean }): Promise<OpenedObjectStore> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-store-"));
  return {
    store: createDirectoryObjectStore(join(folder, "repository"), options),
    close: () => rm(folder, { recursive: true }),
  };
}
