import {
  CopyObjectCommand,
  GetObjectCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
} from "@aws-sdk/client-s3";
import type {
  CallOptions,
  ObjectVersion,
  ObjectVersions,
} from "@holdfast/shared/ports/object-store";
import { checkObjectPrefix, compareKeys, isObjectKey } from "../object-key.ts";
import { readBody } from "./s3-body.ts";
import { listingInvalid, type S3Bucket, sendOptions } from "./s3-bucket.ts";

/** The versions and delete markers of a bucket that keeps them. */
export function createS3Versions(place: S3Bucket): ObjectVersions {
  const { client, bucket, folder, url, failure } = place;
  return {
    list,
    async get(key, versionId, call) {
      try {
        const command = new GetObjectCommand(place.place(key, { versionId }));
        const answer = await client.send(command, sendOptions(call));
        return await readBody(answer, { what: `${url}/${key}`, signal: call?.signal });
      } catch (error) {
        throw failure(error, "read an older version of", key, call);
      }
    },
    async reinstate(key, versionId, call) {
      const source = `${bucket}/${folder}${key}`.split("/").map(encodeURIComponent).join("/");
      const command = new CopyObjectCommand({
        ...place.place(key),
        CopySource: `${source}?versionId=${encodeURIComponent(versionId)}`,
      });
      await client.send(command, sendOptions(call)).catch((error: unknown) => {
        throw failure(error, "put back a version of", key, call);
      });
    },
  };

  async function* list(prefix: string, call?: CallOptions): AsyncGenerator<ObjectVersion> {
    checkObjectPrefix(prefix);
    let next: { readonly key: string; readonly version: string | undefined } | undefined;
    do {
      call?.signal?.throwIfAborted();
      const command = new ListObjectVersionsCommand({
        Bucket: bucket,
        Prefix: folder + prefix,
        ...(next === undefined ? {} : { KeyMarker: next.key, VersionIdMarker: next.version }),
      });
      const page = await client.send(command, sendOptions(call)).catch((error: unknown) => {
        throw failure(error, "list the versions of", prefix, call);
      });
      yield* versionsOf(page, folder);
      const { NextKeyMarker: key, NextVersionIdMarker: version } = page;
      const more = page.IsTruncated === true;
      if (more && (key === undefined || (key === next?.key && version === next.version))) {
        throw listingInvalid(url, "more versions to come, but no new marker");
      }
      next = more && key !== undefined ? { key, version } : undefined;
    } while (next !== undefined);
  }
}

/** Versions and markers come apart, each newest first within a key. */
function versionsOf(page: ListObjectVersionsCommandOutput, folder: string): ObjectVersion[] {
  const entries = [
    ...(page.Versions ?? []).map((entry) => ({ ...entry, isDeleteMarker: false })),
    ...(page.DeleteMarkers ?? []).map((entry) => ({
      ...entry,
      Size: 0,
      ETag: "",
      isDeleteMarker: true,
    })),
  ];
  return entries
    .flatMap(({ Key: name = "", VersionId: versionId = "null", ...entry }) => {
      const key = name.slice(folder.length);
      if (!name.startsWith(folder) || !isObjectKey(key)) return [];
      const {
        IsLatest: isLatest = false,
        Size: sizeBytes = 0,
        ETag: etag = "",
        isDeleteMarker,
      } = entry;
      const modifiedMs = entry.LastModified?.getTime() ?? 0;
      return [
        { version: { key, versionId, isLatest, isDeleteMarker, sizeBytes, etag }, modifiedMs },
      ];
    })
    .sort(
      (left, right) =>
        compareKeys(left.version.key, right.version.key) ||
        Number(right.version.isLatest) - Number(left.version.isLatest) ||
        right.modifiedMs - left.modifiedMs,
    )
    .map(({ version }) => version);
}
