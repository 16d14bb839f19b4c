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
import { inspectDirectory } from "./directory/inspect-directory.ts";
import { type Finding, note, type StorageReport } from "./finding.ts";
import { probeObjectStore } from "./probe-object-store.ts";
import { parseStorageUrl, type StorageAddress } from "./storage-url.ts";
import { type StoreThrottles, throttled } from "./throttled.ts";
import { withRetries } from "./with-retries.ts";

/**
 * Opens the store behind a URL, with retries. Credentials and region of S3 come from the SDK's environment.
 * `supports` is what `probeStorage` found when the repository was made; without it a store is used in the way that is
 * right on all, at the cost of one more request a put. Makes no request itself.
 */
export async function openObjectStore(
  url: string,
  options: { readonly supports?: ObjectStoreSupports; readonly throttles?: StoreThrottles } = {},
): Promise<ObjectStore> {
  const store = await openAddress(parseStorageUrl(url), options.supports);
  // Inside of the retries, which are traffic as well.
  const limited = options.throttles === undefined ? store : throttled(store, options.throttles);
  return withRetries(limited, {}, systemClock, systemRandom);
}

/**
 * Looks at what is behind a URL and tries, below `probe/`, what a repository needs. Nothing of it stays, unless removals are refused.
 * Fails when it cannot be written to or read at all, or does not give back what it was given.
 */
export async function inspectStorage(url: string, call?: CallOptions): Promise<StorageReport> {
  const address = parseStorageUrl(url);
  if (address.kind === "s3") return await inspectBucket(address, call);
  const findings = await inspectDirectory(address.path);
  const guarded = await openAddress(address, undefined);
  const unguarded = await openAddress(address, { conditionalPut: true });
  const openUnguarded = () => unguarded;
  const probed = await probeObjectStore(guarded, { random: systemRandom, openUnguarded, call });
  return { supports: probed.supports, findings: judgeConditions(probed, findings) };
}

/** What the store can do, for a new repository. Fails with `storage.refused` where it would endanger one. */
export async function probeStorage(url: string, call?: CallOptions): Promise<StorageReport> {
  const report = await inspectStorage(url, call);
  const [first, ...others] = report.findings.filter(({ severity }) => severity === "danger");
  if (first === undefined) return report;
  const more =
    others.length > 0 ? ` (and ${others.length} more; see \`holdfast repository doctor\`)` : "";
  throw new Failure(first.id === "clock" ? "clock.wrong" : "storage.refused", {
    message: `${url} is not safe for a repository: ${first.what}. ${first.remedy}${more}`,
    findings: report.findings,
  });
}

async function inspectBucket(
  address: StorageAddress & { readonly kind: "s3" },
  call: CallOptions | undefined,
): Promise<StorageReport> {
  const { createS3Client } = await import("./s3/s3-client.ts");
  const client = createS3Client();
  try {
    const { inspectS3Storage } = await import("./s3/inspect-s3-storage.ts");
    const probed = await inspectS3Storage({ ...address, client, call });
    return { supports: probed.supports, findings: judgeConditions(probed, []) };
  } finally {
    client.destroy();
  }
}

function judgeConditions(probed: StorageReport, others: readonly Finding[]): readonly Finding[] {
  const found = [...others, ...probed.findings];
  if (probed.supports.conditionalPut) return found;
  const what =
    "the store does not refuse a put to a taken name by itself; names that are never chosen twice take its place";
  return [...found, note("no-conditional-put", what)];
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
    return createS3ObjectStore({
      bucket,
      prefix,
      client,
      ...(supports && { supports: asFarAsKnown(supports) }),
    });
  }
  const found = await stat(address.path).catch(() => undefined);
  if (found !== undefined && !found.isDirectory()) {
    throw new Failure("input.invalid", { message: `${address.path} is not a folder` });
  }
  return createDirectoryObjectStore(address.path, {
    ...(supports && { hardLinks: supports.conditionalPut }),
  });
}

/** That a store once ignored conditions is no reason to put without: some stores refuse that, and the repository may have moved. */
function asFarAsKnown(supports: ObjectStoreSupports): Partial<ObjectStoreSupports> {
  const { conditionalPut, ...rest } = supports;
  return conditionalPut ? supports : rest;
}
