import { stat } from "node:fs/promises";
import { Failure } from "@holdfast/shared/domain/failure";
import { systemClock } from "@holdfast/shared/ports/clock";
import type {
  CallOptions,
  ObjectStore,
  ObjectStoreSupports,
} from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createDirectoryObjectStore } from "./directory/directory-object-store.ts";
import { probeObjectStore } from "./probe-object-store.ts";
import { parseStorageUrl, type StorageAddress } from "./storage-url.ts";
import { withRetries } from "./with-retries.ts";

/**
 * Opens the store behind a URL, with retries. Credentials and region of S3 come from the SDK's environment.
 * `supports` is what `probeStorage` found when the repository was made; without it a store is used in the way that is
 * right on all, at the cost of one more request a put. Makes no request itself.
 */
export async function openObjectStore(
  url: string,
  options: { readonly supports?: ObjectStoreSupports } = {},
): Promise<ObjectStore> {
  const store = await openAddress(parseStorageUrl(url), options.supports);
  return withRetries(store, {}, systemClock, systemRandom);
}

/** Checks by use that the store can hold a repository, and what it can do; see `probeObjectStore`. */
export async function probeStorage(url: string, call?: CallOptions): Promise<ObjectStoreSupports> {
  const address = parseStorageUrl(url);
  const guarded = await openAddress(address, undefined);
  const unguarded = await openAddress(address, { conditionalPut: true });
  return await probeObjectStore(guarded, {
    random: systemRandom,
    openUnguarded: () => unguarded,
    ...(call === undefined ? {} : { call }),
  });
}

async function openAddress(
  address: StorageAddress,
  supports: ObjectStoreSupports | undefined,
): Promise<ObjectStore> {
  if (address.kind === "s3") {
    const { bucket, prefix } = address;
    // Only here: loading the SDK is a good part of a short command's time.
    const { createS3Client } = await import("./s3/s3-client.ts");
    const { createS3ObjectStore } = await import("./s3/s3-object-store.ts");
    const client = createS3Client();
    return createS3ObjectStore({ bucket, prefix, client, ...(supports && { supports }) });
  }
  const found = await stat(address.path).catch(() => undefined);
  if (found !== undefined && !found.isDirectory()) {
    throw new Failure("input.invalid", { message: `${address.path} is not a folder` });
  }
  return createDirectoryObjectStore(address.path, {
    ...(supports && { hardLinks: supports.conditionalPut }),
  });
}
