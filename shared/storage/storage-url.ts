import { isAbsolute } from "node:path";
import { fileURLToPath } from "node:url";
import { Failure } from "@holdfast/shared/domain/failure";
import { isObjectKey } from "./object-key.ts";

/** Where a repository lies, as people write it. */
export type StorageAddress =
  | { readonly kind: "s3"; readonly bucket: string; readonly prefix: string }
  | { readonly kind: "directory"; readonly path: string };

/** `s3://bucket/prefix`, `file:///path`, or a plain path, which must be absolute. */
export function parseStorageUrl(url: string): StorageAddress {
  if (url.startsWith("s3://")) {
    const [bucket = "", ...rest] = url.slice("s3://".length).split("/");
    const prefix = rest.join("/").replace(/\/$/, "");
    if (
      /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket) &&
      (prefix === "" || isObjectKey(prefix))
    ) {
      return { kind: "s3", bucket, prefix };
    }
  } else if (url.startsWith("file:///") && URL.canParse(url)) {
    return { kind: "directory", path: fileURLToPath(url) };
  } else if (isAbsolute(url) && !url.includes("\0")) {
    return { kind: "directory", path: url };
  }
  throw new Failure("input.invalid", {
    message: `storage URL ${JSON.stringify(url.slice(0, 200))} is not valid: use s3://bucket/prefix, file:///path or an absolute path`,
  });
}
