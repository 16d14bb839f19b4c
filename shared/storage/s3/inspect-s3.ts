import {
  DeleteObjectsCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  GetObjectLockConfigurationCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import type { CallOptions } from "@holdfast/shared/ports/object-store";
import { danger, type Finding, note, warning } from "../finding.ts";
import { type S3Bucket, sendOptions } from "./s3-bucket.ts";
import { clockSkewMs } from "./s3-client.ts";
import { s3Problem } from "./s3-failure.ts";
import { isArchived, judgeLifecycle } from "./s3-lifecycle.ts";

/** What the bucket itself says; puts and removals are tried by `probeObjectStore`. */
export type S3Inspection = {
  /** Undefined, as with Object Lock: this credential may not ask. */
  readonly versioned: boolean | undefined;
  readonly objectLock: boolean | undefined;
  readonly checksums: boolean;
  readonly findings: readonly Finding[];
};

const minuteMs = 60 * 1000;
/** Beyond this S3 refuses requests soon, and dates of retention are wrong. */
const skewMsMax = 5 * minuteMs;

/** Objects that the inspection may leave below its folder. */
export const inspectionNames = ["sum", "none"] as const;

type Look = {
  readonly place: S3Bucket;
  /** Ends in a slash; for objects that are made and removed again. */
  readonly folder: string;
  readonly findings: Finding[];
  readonly call: CallOptions | undefined;
};

/** Fails with `storage.refused` and `storage.unreachable` when not even objects can be written there. */
export async function inspectS3(
  place: S3Bucket,
  options: { readonly folder: string; readonly call?: CallOptions | undefined },
): Promise<S3Inspection> {
  const look: Look = { place, folder: options.folder, findings: [], call: options.call };
  const versioned = await inspectVersioning(look);
  const objectLock = await inspectLock(look);
  await inspectLifecycle(look);
  await inspectClasses(look);
  const checksums = await inspectChecksums(look);
  await inspectBatchRemoval(look);
  inspectClock(look);
  return { versioned, objectLock, checksums, findings: look.findings };
}

async function inspectVersioning(look: Look): Promise<boolean | undefined> {
  const { place, findings, call } = look;
  const command = new GetBucketVersioningCommand({ Bucket: place.bucket });
  const answer = await asked(look, "versioning", place.client.send(command, sendOptions(call)));
  if (answer === unseen) return undefined;
  if (answer?.Status === "Suspended") {
    const what =
      "versioning of the bucket is suspended: puts and removals destroy, older versions stay and cost";
    findings.push(warning("versioning-suspended", what, "Enable it, or remove the old versions."));
  }
  return answer?.Status !== undefined;
}

async function inspectLock(look: Look): Promise<boolean | undefined> {
  const { place, findings, call } = look;
  const command = new GetObjectLockConfigurationCommand({ Bucket: place.bucket });
  const answer = await asked(look, "Object Lock", place.client.send(command, sendOptions(call)));
  if (answer === unseen) return undefined;
  const found = answer?.ObjectLockConfiguration;
  const rule = found?.Rule?.DefaultRetention;
  if (rule !== undefined) {
    const time = rule.Days === undefined ? `${rule.Years} years` : `${rule.Days} days`;
    findings.push(
      warning(
        "default-retention",
        `the bucket locks every object for ${time} (${rule.Mode}): also what Holdfast must remove soon, such as index segments and the signs of life of sessions`,
        "Remove the bucket's default retention; Holdfast locks what must be locked, each object by itself.",
      ),
    );
  }
  return found?.ObjectLockEnabled === "Enabled";
}

async function inspectLifecycle(look: Look): Promise<void> {
  const { place, findings, call } = look;
  const command = new GetBucketLifecycleConfigurationCommand({ Bucket: place.bucket });
  const asking = place.client.send(command, sendOptions(call));
  const answer = await asked(look, "lifecycle rules", asking);
  if (answer === unseen) return;
  findings.push(...judgeLifecycle(answer?.Rules ?? [], place.folder));
}

/** A page of what is there: rules that are gone may have left objects where they cannot be read at once. */
async function inspectClasses({ place, findings, call }: Look): Promise<void> {
  const { client, bucket, folder, failure } = place;
  const command = new ListObjectsV2Command({ Bucket: bucket, Prefix: `${folder}packs/` });
  const page = await client.send(command, sendOptions(call)).catch((error: unknown) => {
    throw failure(error, "list", "packs/", call);
  });
  const away = (page.Contents ?? []).filter((entry) => isArchived(entry.StorageClass));
  if (away.length === 0) return;
  const what = `${away.length} of ${page.Contents?.length} packs that were looked at lie in an archive class (${away[0]?.StorageClass}); no restore can read them at once`;
  findings.push(danger("archived", what, "Restore them to a class that can be read at once."));
}

/** Puts a body under a checksum that is not its own. Who stores it checks nothing. */
async function inspectChecksums({ place, folder, findings, call }: Look): Promise<boolean> {
  const key = `${folder}${inspectionNames[0]}`;
  const accepts = async (wrong: { ChecksumCRC32C?: string; ContentMD5?: string }) => {
    const command = new PutObjectCommand({
      ...place.place(key),
      Body: Buffer.from("holdfast"),
      IfNoneMatch: "*",
      ...wrong,
    });
    try {
      await place.client.send(command, sendOptions(call));
      return true;
    } catch (error) {
      const failed = place.failure(error, "write", key, call);
      const status = s3Problem(error)?.status ?? 0;
      // 400 is the answer that is hoped for; 412 means that the object is there by an earlier wrong put.
      if (status === 400 || status === 501) return false;
      if (status === 412) return true;
      throw failed;
    }
  };
  const md5 = await accepts({ ContentMD5: Buffer.alloc(16).toString("base64") });
  if (md5) {
    const what =
      "the store does not check Content-MD5; what is damaged on the way is found by the store's ETag, or by reading back";
    findings.push(warning("md5-ignored", what, "Use TLS to the store, or a store that checks."));
  }
  return !(await accepts({ ChecksumCRC32C: "AAAAAA==" }));
}

async function inspectBatchRemoval({ place, folder, findings, call }: Look): Promise<void> {
  const command = new DeleteObjectsCommand({
    Bucket: place.bucket,
    Delete: { Quiet: true, Objects: [{ Key: `${place.folder}${folder}${inspectionNames[1]}` }] },
  });
  await place.client.send(command, sendOptions(call)).catch((error: unknown) => {
    if (s3Problem(error)?.status !== 501) return;
    const what = "the store removes objects one by one only: collection takes a request for each";
    findings.push(note("no-batch-removal", what));
  });
}

function inspectClock({ place, findings }: Look): void {
  const { client, url } = place;
  const skewMs = clockSkewMs(client);
  if (skewMs === undefined || Math.abs(skewMs) <= minuteMs) return;
  const off = `the clock of ${url} is ${Math.round(Math.abs(skewMs) / 1000)} seconds ${skewMs > 0 ? "ahead of" : "behind"} this machine's`;
  const remedy = "Set the clocks of this machine and of the store by NTP.";
  findings.push(
    Math.abs(skewMs) > skewMsMax
      ? danger("clock", `${off}: nothing is written or removed until they agree`, remedy)
      : warning("clock", off, remedy),
  );
}

const unseen = Symbol("this credential may not look at it");

/** What the bucket says about itself; undefined where there is nothing to say. */
async function asked<Answer>(
  { place, findings, call }: Look,
  about: string,
  question: Promise<Answer>,
): Promise<Answer | undefined | typeof unseen> {
  try {
    return await question;
  } catch (error) {
    const { status = 0, name } = s3Problem(error) ?? {};
    if (status === 404 && name !== "NoSuchBucket") return undefined;
    if (![400, 403, 405, 501].includes(status)) throw place.failure(error, "look at", "", call);
    const remedy = "Run the doctor with a credential that may read the bucket's settings.";
    findings.push(
      note("unseen", `${about} could not be looked at: ${name}`, status === 403 ? remedy : ""),
    );
    return unseen;
  }
}
