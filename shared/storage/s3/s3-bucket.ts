import { HeadObjectCommand, type HeadObjectCommandOutput, type S3Client } from "@aws-sdk/client-s3";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { CallOptions, VersionOptions } from "@holdfast/shared/ports/object-store";
import { asS3Failure } from "./s3-failure.ts";

/** A bucket and a folder in it, with what every command on it needs. */
export type S3Bucket = {
  readonly client: S3Client;
  readonly bucket: string;
  /** Empty, or ending in a slash. */
  readonly folder: string;
  readonly url: string;
  readonly place: (
    key: string,
    options?: VersionOptions,
  ) => { readonly Bucket: string; readonly Key: string; readonly VersionId?: string };
  readonly failure: (error: unknown, action: string, key: string, call?: CallOptions) => unknown;
  /** Undefined when there is none. */
  readonly look: (
    key: string,
    options?: VersionOptions,
  ) => Promise<HeadObjectCommandOutput | undefined>;
};

export function describeS3Bucket(options: {
  readonly client: S3Client;
  readonly bucket: string;
  readonly prefix: string;
}): S3Bucket {
  const { client, bucket, prefix } = options;
  const folder = prefix === "" ? "" : `${prefix}/`;
  const url = `s3://${bucket}${prefix === "" ? "" : `/${prefix}`}`;
  const place: S3Bucket["place"] = (key, { versionId } = {}) => ({
    Bucket: bucket,
    Key: folder + key,
    ...(versionId === undefined ? {} : { VersionId: versionId }),
  });
  const failure: S3Bucket["failure"] = (error, action, key, call) =>
    asS3Failure(error, { url: `${url}/${key}`, action, signal: call?.signal });
  return {
    client,
    bucket,
    folder,
    url,
    place,
    failure,
    async look(key, call) {
      try {
        return await client.send(new HeadObjectCommand(place(key, call)), sendOptions(call));
      } catch (error) {
        const failed = failure(error, "look at", key, call);
        if (isFailure(failed, "object.not-found")) return undefined;
        throw failed;
      }
    },
  };
}

export function sendOptions(call: CallOptions | undefined): { abortSignal?: AbortSignal } {
  return call?.signal === undefined ? {} : { abortSignal: call.signal };
}

/** More to come needs a new token: a store that repeats its page would be listed for ever. */
export function listingInvalid(url: string, what: string): Failure {
  return new Failure("storage.refused", {
    message: `the listing of ${url} is not usable (${what}); Holdfast needs one in byte order`,
  });
}
