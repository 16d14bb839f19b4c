import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  type ObjectIdentifier,
} from "@aws-sdk/client-s3";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { type LockedObject, storageLocked } from "@holdfast/shared/ports/object-lock";
import type { CallOptions, ObjectLocks, ObjectVersions } from "@holdfast/shared/ports/object-store";
import { type S3Bucket, sendOptions } from "./s3-bucket.ts";
import { s3Problem } from "./s3-failure.ts";

/** S3's own limit for one DeleteObjects call. */
const removalsPerCallMax = 1000;
/** Requests in flight for what takes one for each object. */
const inFlightMax = 16;

/** One object or version that is to go. */
type Target = { readonly key: string; readonly versionId?: string };
type Left = Target & { readonly code: string; readonly message: string };

/**
 * Removes objects: where there are versions, each by its id, because a removal without one only hides them. What is left is told
 * apart: locked (`storage.locked`, with dates), temporary, refused.
 */
export function createS3Removal(
  place: S3Bucket,
  options: { readonly versions: ObjectVersions | undefined; readonly locks?: ObjectLocks },
): (keys: readonly string[], call?: CallOptions) => Promise<void> {
  const { client, bucket, folder, url, failure } = place;
  const { versions, locks } = options;

  return async (keys, call) => {
    const left: Left[] = [];
    for (let first = 0; first < keys.length; first += removalsPerCallMax) {
      call?.signal?.throwIfAborted();
      const targets = await expand(keys.slice(first, first + removalsPerCallMax), call);
      for (let at = 0; at < targets.length; at += removalsPerCallMax) {
        left.push(...(await removeSome(targets.slice(at, at + removalsPerCallMax), call)));
      }
    }
    if (left.length > 0) throw await explain(left, call);
  };

  async function expand(
    keys: readonly string[],
    call: CallOptions | undefined,
  ): Promise<readonly Target[]> {
    if (versions === undefined) return keys.map((key) => ({ key }));
    const found = await inTurns(keys, async (key) => {
      const its: Target[] = [];
      for await (const version of versions.list(key, call)) {
        if (version.key === key) its.push({ key, versionId: version.versionId });
        // In byte order nothing of this key follows another one.
        else break;
      }
      return its;
    });
    return found.flat();
  }

  async function removeSome(targets: readonly Target[], call?: CallOptions): Promise<Left[]> {
    const objects: ObjectIdentifier[] = targets.map(({ key, versionId }) => ({
      Key: folder + key,
      ...(versionId === undefined ? {} : { VersionId: versionId }),
    }));
    const command = new DeleteObjectsCommand({
      Bucket: bucket,
      Delete: { Quiet: true, Objects: objects },
    });
    try {
      const { Errors: errors = [] } = await client.send(command, sendOptions(call));
      return errors
        .filter(({ Code: code }) => code !== "NoSuchKey" && code !== "NoSuchVersion")
        .map(
          ({ Key: name = "", VersionId: versionId, Code: code = "", Message: message = "" }) => ({
            key: name.slice(folder.length),
            ...(versionId === undefined ? {} : { versionId }),
            code,
            message,
          }),
        );
    } catch (error) {
      if (s3Problem(error)?.status !== 501) throw failure(error, "remove from", "", call);
      return (await inTurns(targets, (target) => removeOne(target, call))).flat();
    }
  }

  async function removeOne(target: Target, call?: CallOptions): Promise<Left[]> {
    try {
      await client.send(
        new DeleteObjectCommand(place.place(target.key, target)),
        sendOptions(call),
      );
      return [];
    } catch (error) {
      const failed = failure(error, "remove", target.key, call);
      if (isFailure(failed, "object.not-found")) return [];
      if (!isFailure(failed, "storage.refused")) throw failed;
      return [{ ...target, code: "AccessDenied", message: failed.message }];
    }
  }

  /** A store says no more than "denied" for what is locked: the object itself says until when. */
  async function explain(left: readonly Left[], call?: CallOptions): Promise<Failure> {
    const looked = await inTurns(left, async (one) => ({ ...one, lock: await lockOf(one, call) }));
    const locked = looked.flatMap(({ lock }) => lock ?? []);
    const others = looked.filter(({ lock }) => lock === undefined);
    return others.length > 0
      ? removalFailed(url, others, locked)
      : storageLocked(url, [...new Map(locked.map((one) => [one.key, one])).values()]);
  }

  async function lockOf(
    { key, versionId, code }: Left,
    call?: CallOptions,
  ): Promise<LockedObject | undefined> {
    if (locks === undefined || temporaryCodes.has(code)) return undefined;
    const state = await locks.look(key, { ...call, ...(versionId && { versionId }) });
    if (state === undefined || (state.retention === undefined && !state.legalHold))
      return undefined;
    const { retention, legalHold } = state;
    return { key, until: retention && new Date(retention.untilMs).toISOString(), legalHold };
  }
}

const temporaryCodes: ReadonlySet<string> = new Set([
  "InternalError",
  "SlowDown",
  "ServiceUnavailable",
  "RequestTimeout",
]);

function removalFailed(
  url: string,
  left: readonly Left[],
  locked: readonly LockedObject[],
): Failure {
  const shown = left
    .slice(0, 5)
    .map(({ key, code, message }) => `${key}: ${code} ${message}`.trim());
  const temporary = left.every(({ code }) => temporaryCodes.has(code));
  return new Failure(temporary ? "storage.unreachable" : "storage.refused", {
    message: `${url} did not remove ${left.length} objects: ${shown.join("; ")}`,
    keys: left.map(({ key }) => key),
    locked,
  });
}

async function inTurns<From, To>(
  items: readonly From[],
  work: (item: From) => Promise<To>,
): Promise<To[]> {
  const results: To[] = [];
  for (let first = 0; first < items.length; first += inFlightMax) {
    results.push(...(await Promise.all(items.slice(first, first + inFlightMax).map(work))));
  }
  return results;
}
