import { createHash } from "node:crypto";
import {
  GetObjectCommand,
  type HeadObjectCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  type PutObjectCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type {
  ByteRange,
  CallOptions,
  ObjectHead,
  ObjectLocks,
  ObjectStore,
  ObjectStoreSupports,
  Retention,
} from "@holdfast/shared/ports/object-store";
import { type RandomBytes, systemRandom } from "@holdfast/shared/ports/random";
import {
  checkByteRange,
  checkObjectKey,
  checkObjectPrefix,
  compareKeys,
  isObjectKey,
} from "../object-key.ts";
import { readBody } from "./s3-body.ts";
import { describeS3Bucket, listingInvalid, sendOptions } from "./s3-bucket.ts";
import { clockSkewMs, createS3Client } from "./s3-client.ts";
import { s3Problem } from "./s3-failure.ts";
import { createS3Locks, retentionFields } from "./s3-locks.ts";
import { createS3Removal } from "./s3-removal.ts";
import { createS3Versions } from "./s3-versions.ts";

/** User metadata with a random id of the put: who reads it knows whose put succeeded. */
const putIdName = "holdfast-put";

export type S3ObjectStoreOptions = {
  readonly bucket: string;
  /** Keys live below it: empty, or a path without slashes at its ends. */
  readonly prefix: string;
  readonly client?: S3Client;
  /**
   * As probed when the repository was made. Undefined: not known; a put then looks first *and* asks the store to refuse
   * a taken key, which is right on every store and costs one more request.
   */
  readonly supports?: Partial<ObjectStoreSupports>;
  readonly random?: RandomBytes;
};

/**
 * An S3 bucket, or a prefix in one, as an object store. The SDK retries what is safe to repeat; an answer that leaves
 * open whether a put took place is resolved by looking for the put's own id. Success is never taken on trust: a put
 * counts when the store's ETag is the body's MD5, or the object is there with the right length and id.
 */
export function createS3ObjectStore(options: S3ObjectStoreOptions): ObjectStore {
  const { bucket, prefix, client = createS3Client(), supports, random = systemRandom } = options;
  if (prefix !== "") checkObjectKey(prefix);
  const place = describeS3Bucket({ client, bucket, prefix });
  const { folder, url, failure, look } = place;
  const versions = supports?.versioned === true ? createS3Versions(place) : undefined;
  const locks =
    supports?.objectLock === true ? createS3Locks(place, () => checkClock(client, url)) : undefined;
  const remove = createS3Removal(place, { versions, ...(locks && { locks }) });

  return {
    supports: { ...supports, conditionalPut: supports?.conditionalPut ?? false },
    url,
    ...(locks && { locks }),
    ...(versions && { versions }),

    async put(key, bytes, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      checkClock(client, url);
      checkRetention(call?.retention, { url, locks });
      if (supports?.conditionalPut !== true && (await look(key, call)) !== undefined) {
        throw alreadyExists(url, key);
      }
      const attempt = describePut(bytes, random);
      const request = {
        ...place.place(key),
        Body: bytes,
        ContentLength: bytes.length,
        ContentMD5: attempt.md5.toString("base64"),
        ContentType: "application/octet-stream",
        Metadata: { [putIdName]: attempt.id },
        ...(call?.retention && retentionFields(call.retention)),
      };
      let answer: PutObjectCommandOutput;
      try {
        answer = await sendPut(request, call);
      } catch (error) {
        const failed = failure(error, "write", key, call);
        if (!leavesOpen(failed)) throw failed;
        if (await isStored(key, attempt, call)) return;
        throw failed;
      }
      if (answer.ETag?.replaceAll('"', "") === attempt.md5.toString("hex")) return;
      await confirmStored(key, { attempt, bytes, encryption: answer.ServerSideEncryption, call });
    },

    async get(key, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      try {
        const answer = await client.send(new GetObjectCommand(place.place(key)), sendOptions(call));
        return await readBody(answer, { what: `${url}/${key}`, signal: call?.signal });
      } catch (error) {
        throw failure(error, "read", key, call);
      }
    },

    async getRange(key, range, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      checkByteRange(range);
      if (range.length === 0) return await emptyRange(key, range, call);
      const last = range.offset + range.length - 1;
      const command = new GetObjectCommand({
        ...place.place(key),
        Range: `bytes=${range.offset}-${last}`,
      });
      try {
        const answer = await client.send(command, sendOptions(call));
        return await readBody(answer, { what: `${url}/${key}`, range, signal: call?.signal });
      } catch (error) {
        throw failure(error, "read", key, call);
      }
    },

    async head(key, call) {
      call?.signal?.throwIfAborted();
      checkObjectKey(key);
      const found = await look(key, call);
      return found === undefined ? undefined : { key, sizeBytes: sizeOf(found, `${url}/${key}`) };
    },

    list: (prefixOfKeys, call) => listPages(prefixOfKeys, call),

    async remove(keys, call) {
      call?.signal?.throwIfAborted();
      for (const key of keys) checkObjectKey(key);
      checkClock(client, url);
      await remove(keys, call);
    },
  };

  async function emptyRange(key: string, range: ByteRange, call?: CallOptions) {
    const found = await look(key, call);
    if (found === undefined) {
      throw new Failure("object.not-found", { message: `${url}/${key} does not exist`, key });
    }
    if (range.offset <= sizeOf(found, `${url}/${key}`)) return new Uint8Array(0);
    throw new Failure("object.corrupt", {
      message: `${url}/${key} has ${found.ContentLength} bytes, offset ${range.offset} was asked for`,
      key,
    });
  }

  /** Asks the store to refuse a taken key, unless the probe found that it can't or it says so itself. */
  async function sendPut(
    request: PutObjectCommandInput,
    call: CallOptions | undefined,
  ): Promise<PutObjectCommandOutput> {
    const unconditional = () => client.send(new PutObjectCommand(request), sendOptions(call));
    if (supports?.conditionalPut === false) return await unconditional();
    try {
      const command = new PutObjectCommand({ ...request, IfNoneMatch: "*" });
      return await client.send(command, sendOptions(call));
    } catch (error) {
      if (supports?.conditionalPut !== undefined || s3Problem(error)?.status !== 501) throw error;
      return await unconditional();
    }
  }

  /** Whether this very put is what the store holds. Failing to find out is retryable: the next attempt looks again. */
  async function isStored(key: string, attempt: PutAttempt, call?: CallOptions): Promise<boolean> {
    const found = await look(key, call);
    return (
      found?.Metadata?.[putIdName] === attempt.id && found.ContentLength === attempt.lengthBytes
    );
  }

  /** For answers whose ETag proves nothing: looks, and reads back unless the store says that it encrypts (its ETag is no MD5 then). */
  async function confirmStored(
    key: string,
    put: {
      readonly attempt: PutAttempt;
      readonly bytes: Uint8Array;
      readonly encryption: string | undefined;
      readonly call: CallOptions | undefined;
    },
  ): Promise<void> {
    const { attempt, bytes, call } = put;
    if (!(await isStored(key, attempt, call))) {
      throw new Failure("storage.unreachable", {
        message: `${url} answered that ${key} was stored, but it is not there as sent`,
        key,
      });
    }
    if (put.encryption?.startsWith("aws:kms") === true) return;
    const answer = await client
      .send(new GetObjectCommand(place.place(key)), sendOptions(call))
      .catch((error: unknown) => {
        throw failure(error, "read back", key, call);
      });
    const stored = await readBody(answer, { what: `${url}/${key}`, signal: call?.signal }).catch(
      (error: unknown) => {
        throw failure(error, "read back", key, call);
      },
    );
    if (Buffer.compare(stored, bytes) === 0) return;
    throw new Failure("object.corrupt", { message: `${url} stored other bytes than sent`, key });
  }

  async function* listPages(prefixOfKeys: string, call?: CallOptions): AsyncGenerator<ObjectHead> {
    checkObjectPrefix(prefixOfKeys);
    let token: string | undefined;
    let previous = "";
    do {
      call?.signal?.throwIfAborted();
      const command = new ListObjectsV2Command({
        Bucket: bucket,
        Prefix: folder + prefixOfKeys,
        ...(token === undefined ? {} : { ContinuationToken: token }),
      });
      const page = await client.send(command, sendOptions(call)).catch((error: unknown) => {
        throw failure(error, "list", prefixOfKeys, call);
      });
      for (const { Key: name = "", Size: sizeBytes } of page.Contents ?? []) {
        const key = name.slice(folder.length);
        // Others may keep objects here that no put of ours could have made, such as a console's folder markers.
        if (!name.startsWith(folder + prefixOfKeys) || !isObjectKey(key)) continue;
        if (key === previous) continue;
        if (sizeBytes === undefined || compareKeys(key, previous) < 0) {
          throw listingInvalid(url, `${key} after ${previous}, size ${sizeBytes}`);
        }
        previous = key;
        yield { key, sizeBytes };
      }
      const next = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      if (page.IsTruncated === true && (next === undefined || next === token)) {
        throw listingInvalid(url, "more to come, but no new continuation token");
      }
      token = next;
    } while (token !== undefined);
  }
}

type PutAttempt = { readonly id: string; readonly md5: Buffer; readonly lengthBytes: number };

function describePut(bytes: Uint8Array, random: RandomBytes): PutAttempt {
  return {
    id: Buffer.from(random(16)).toString("hex"),
    md5: createHash("md5").update(bytes).digest(),
    lengthBytes: bytes.length,
  };
}

/** No answer, an answer that says nothing, or "taken", which may be by ourselves. */
function leavesOpen(failed: unknown): boolean {
  return isFailure(failed, "storage.unreachable") || isFailure(failed, "object.exists");
}

function sizeOf(found: HeadObjectCommandOutput, what: string): number {
  if (found.ContentLength !== undefined) return found.ContentLength;
  throw new Failure("storage.unreachable", { message: `${what}: the store did not say its size` });
}

function alreadyExists(url: string, key: string): Failure {
  return new Failure("object.exists", { message: `${url}/${key} exists already`, key });
}

/** S3 refuses requests signed a quarter of an hour off, and dates of retention are only as right as the clock. */
const clockSkewMsMax = 5 * 60 * 1000;

/** Nothing is written or removed while our clock and the store's disagree; reading goes on. */
function checkClock(client: S3Client, url: string): void {
  const skewMs = clockSkewMs(client) ?? 0;
  if (Math.abs(skewMs) <= clockSkewMsMax) return;
  const minutes = Math.round(Math.abs(skewMs) / 60_000);
  throw new Failure("clock.wrong", {
    message: `the clock of ${url} is ${minutes} minutes ${skewMs > 0 ? "ahead of" : "behind"} this machine's; nothing is written or removed until they agree within ${clockSkewMsMax / 60_000} minutes`,
  });
}

function checkRetention(
  retention: Retention | undefined,
  store: { readonly url: string; readonly locks: ObjectLocks | undefined },
): void {
  if (retention === undefined || store.locks !== undefined) return;
  throw new Failure("unsupported", { message: `${store.url} is not known to have Object Lock` });
}
