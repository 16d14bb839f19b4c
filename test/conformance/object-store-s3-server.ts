import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createBucketVersions, type StoredVersion } from "./object-store-s3-versions.ts";

/**
 * What goes wrong with one request. `applied` faults happen after the store did what it was asked.
 * `ignore-condition` stores over what is there; `frame` keeps transfer framing in the stored body; `flip` stores one
 * bit wrong, `half` the first half only, and both answer with the ETag of what they stored; `not-found` does not see what is there;
 * `unchecked` looks at no checksum; `ignored` answers that all is well and does nothing.
 */
export type S3Fault =
  | {
      readonly kind: "status";
      readonly status: number;
      readonly code: string;
      readonly applied?: boolean;
    }
  | { readonly kind: "reset"; readonly applied?: boolean }
  | { readonly kind: "stall"; readonly applied?: boolean }
  | { readonly kind: "truncate"; readonly bytes: number }
  | { readonly kind: "ok-with-error-body" }
  | { readonly kind: "ignore-range" }
  | { readonly kind: "wrong-etag" }
  | { readonly kind: "ignore-condition" }
  | { readonly kind: "frame" }
  | { readonly kind: "flip" }
  | { readonly kind: "half" }
  | { readonly kind: "not-found" }
  | { readonly kind: "unchecked" }
  | { readonly kind: "ignored" }
  | { readonly kind: "removal-error"; readonly key: string; readonly code: string };

export type S3Call = {
  readonly operation: "put" | "get" | "head" | "list" | "remove" | "versions" | "lock" | "bucket";
  readonly key: string;
  readonly headers: IncomingMessage["headers"];
};

/** An S3 endpoint in memory with one bucket, whose every request can be made to fail. Speaks what the driver uses. */
export type S3Server = AsyncDisposable & {
  readonly endpoint: string;
  readonly calls: readonly S3Call[];
  /** What a reader sees. */
  readonly objects: ReadonlyMap<string, StoredVersion>;
  /** What the bucket says about itself, by the name of the sub-resource: `versioning`, `object-lock`, `lifecycle`. */
  readonly settings: Map<string, string>;
  /** Of the store's clock, in milliseconds. */
  clockOffsetMs: number;
  /** Somebody else overwrites an object, or deletes it without naming its version. */
  hide: (key: string, bytes: Uint8Array | undefined) => void;
  /** Asked for each request; undefined lets it pass. */
  onCall: (call: S3Call) => S3Fault | undefined;
};
/** Entries of one page of a listing: small, so that paging is always exercised. */
const pageEntriesMax = 3;

/** `objectLock`: the bucket keeps versions, and locks them where it is asked to. */
export async function startS3Server(
  options: { readonly objectLock?: boolean } = {},
): Promise<S3Server> {
  const { objectLock = false } = options;
  const versions = createBucketVersions(() => objectLock);
  const calls: S3Call[] = [];
  const settings = new Map<string, string>();
  if (objectLock) {
    settings.set("versioning", "<Status>Enabled</Status>");
    settings.set("object-lock", "<ObjectLockEnabled>Enabled</ObjectLockEnabled>");
  }
  const server = createServer((request, response) => {
    void serve(request, response).catch((error: unknown) => response.destroy(error as Error));
  });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://store");
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const body = Buffer.concat(pieces);
    const [, , ...rest] = decodeURIComponent(url.pathname).split("/");
    const call = {
      operation: operationOf(request, url),
      key: rest.join("/"),
      headers: request.headers,
    };
    calls.push(call);
    response.setHeader("date", new Date(Date.now() + self.clockOffsetMs).toUTCString());
    const fault = self.onCall(call);
    const applies = fault === undefined || !("applied" in fault) || fault.applied === true;
    if (fault?.kind === "status" || fault?.kind === "reset" || fault?.kind === "stall") {
      if (applies && fault.applied === true) apply(call, { url, body, fault: undefined });
      if (fault.kind === "reset") return void request.socket.destroy();
      if (fault.kind === "stall") return;
      return send(response, call, xmlError(fault.status, fault.code));
    }
    if (fault?.kind === "ignored") return send(response, call, xml(200, ""));
    const answer = apply(call, { url, body, fault });
    if (fault?.kind === "truncate") {
      response.writeHead(answer.status, {
        ...answer.headers,
        "content-length": answer.body.length,
      });
      response.write(answer.body.subarray(0, fault.bytes), () => request.socket.destroy());
      return;
    }
    send(response, call, answer);
  }

  function apply(
    call: S3Call,
    { url, body, fault }: { url: URL; body: Buffer; fault: S3Fault | undefined },
  ): Answer {
    switch (call.operation) {
      case "put":
        return put(call, body, fault);
      case "get":
      case "head":
        return get(call, url.searchParams.get("versionId") ?? undefined, fault);
      case "list":
        return list(url);
      case "versions":
        return listVersions(url);
      case "remove":
        return call.key === "" ? remove(body, fault) : removeOne(call, url);
      case "lock":
        return lock(call, url, body);
      case "bucket":
        return describeBucket(url);
      default:
        return call.operation satisfies never;
    }
  }

  function put({ key, headers }: S3Call, body: Buffer, fault: S3Fault | undefined): Answer {
    if (fault?.kind === "ok-with-error-body")
      return { ...xmlError(200, "InternalError"), status: 200 };
    const source = headers["x-amz-copy-source"];
    if (source !== undefined) return copy(key, String(source));
    const isRight = Buffer.from(md5Of(body), "hex").toString("base64") === headers["content-md5"];
    // Nothing sends a right one of the other kind.
    const isSummed = headers["x-amz-checksum-crc32c"] !== undefined;
    if ((!isRight || isSummed) && fault?.kind !== "unchecked") return xmlError(400, "BadDigest");
    if (
      headers["if-none-match"] === "*" &&
      versions.find(key, undefined) !== undefined &&
      fault?.kind !== "ignore-condition"
    ) {
      return xmlError(412, "PreconditionFailed");
    }
    const mode = headers["x-amz-object-lock-mode"];
    if (mode !== undefined && !objectLock) return xmlError(400, "InvalidRequest");
    const until = String(headers["x-amz-object-lock-retain-until-date"]);
    const metadata: Record<string, string> = {};
    for (const [name, value] of Object.entries(headers)) {
      if (name.startsWith("x-amz-meta-")) metadata[name] = String(value);
    }
    const kept = keptBytes(body, fault);
    const lock = mode === undefined ? undefined : { mode: String(mode), until };
    versions.put(key, { bytes: kept, metadata, lock });
    const isHonest = fault?.kind === "flip" || fault?.kind === "half";
    const etag = fault?.kind === "wrong-etag" ? "none-of-yours" : md5Of(isHonest ? kept : body);
    return { status: 200, headers: { etag: `"${etag}"` }, body: Buffer.alloc(0) };
  }

  function copy(key: string, source: string): Answer {
    const [, name = "", id] = /^[^/]+\/([^?]+)(?:\?versionId=(.*))?$/.exec(source) ?? [];
    const found = versions.find(decodeURIComponent(name), id);
    if (found === undefined) return xmlError(404, "NoSuchKey");
    versions.put(key, { bytes: found.bytes, metadata: found.metadata, lock: undefined });
    return xml(200, `<CopyObjectResult><ETag>"${md5Of(found.bytes)}"</ETag></CopyObjectResult>`);
  }

  function get({ key, headers }: S3Call, id: string | undefined, fault?: S3Fault): Answer {
    const found = versions.find(key, id);
    if (found === undefined || fault?.kind === "not-found") return xmlError(404, "NoSuchKey");
    const { bytes } = found;
    const described = { ...found.metadata, ...lockHeaders(found), etag: `"${md5Of(bytes)}"` };
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
    if (range === null || fault?.kind === "ignore-range") {
      return { status: 200, headers: described, body: bytes };
    }
    const [first, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
    if (first >= bytes.length) return xmlError(416, "InvalidRange");
    const contentRange = `bytes ${first}-${last}/${bytes.length}`;
    return {
      status: 206,
      headers: { ...described, "content-range": contentRange },
      body: bytes.subarray(first, last + 1),
    };
  }

  function list(url: URL): Answer {
    const after = url.searchParams.get("continuation-token") ?? "";
    const prefix = url.searchParams.get("prefix") ?? "";
    const keys = [...self.objects.keys()].filter((key) => key.startsWith(prefix) && key > after);
    const page = keys.slice(0, pageEntriesMax);
    const entries = page.map(
      (key) =>
        `<Contents><Key>${key}</Key><Size>${self.objects.get(key)?.bytes.length}</Size></Contents>`,
    );
    const more = keys.length > page.length;
    const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    return xml(
      200,
      `<ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`,
    );
  }

  /** Pages end within a key's versions, too. */
  function listVersions(url: URL): Answer {
    const prefix = url.searchParams.get("prefix") ?? "";
    const afterKey = url.searchParams.get("key-marker");
    const afterId = url.searchParams.get("version-id-marker");
    const all = versions
      .keys()
      .filter((key) => key.startsWith(prefix))
      .flatMap((key) => versions.of(key).map((version, at) => ({ key, version, at })));
    const last = all.findIndex(
      ({ key, version }) => key === afterKey && version.versionId === afterId,
    );
    const rest = all.slice(last + 1);
    const page = rest.slice(0, pageEntriesMax);
    const entries = page.map(({ key, version, at }) => {
      const name = version.isDeleteMarker ? "DeleteMarker" : "Version";
      const { bytes, versionId } = version;
      const about = version.isDeleteMarker
        ? ""
        : `<Size>${bytes.length}</Size><ETag>"${md5Of(bytes)}"</ETag>`;
      const modified = new Date(2_000_000_000_000 - at * 1000).toISOString();
      return `<${name}><Key>${key}</Key><VersionId>${versionId}</VersionId><IsLatest>${at === 0}</IsLatest><LastModified>${modified}</LastModified>${about}</${name}>`;
    });
    const end = page.at(-1);
    const next =
      rest.length > page.length && end !== undefined
        ? `<IsTruncated>true</IsTruncated><NextKeyMarker>${end.key}</NextKeyMarker><NextVersionIdMarker>${end.version.versionId}</NextVersionIdMarker>`
        : "<IsTruncated>false</IsTruncated>";
    return xml(200, `<ListVersionsResult>${next}${entries.join("")}</ListVersionsResult>`);
  }

  function remove(body: Buffer, fault: S3Fault | undefined): Answer {
    const errors: string[] = [];
    for (const [, text = ""] of body.toString().matchAll(/<Object>(.*?)<\/Object>/g)) {
      const key = tagIn(text, "Key") ?? "";
      const id = tagIn(text, "VersionId");
      const told = fault?.kind === "removal-error" && fault.key === key ? fault.code : undefined;
      const code = told ?? (versions.remove(key, id) ? undefined : "AccessDenied");
      if (code === undefined) continue;
      const version = id === undefined ? "" : `<VersionId>${id}</VersionId>`;
      errors.push(`<Error><Key>${key}</Key>${version}<Code>${code}</Code></Error>`);
    }
    return xml(200, `<DeleteResult>${errors.join("")}</DeleteResult>`);
  }

  function removeOne({ key }: S3Call, url: URL): Answer {
    const isRemoved = versions.remove(key, url.searchParams.get("versionId") ?? undefined);
    return isRemoved ? xml(204, "") : xmlError(403, "AccessDenied");
  }

  function lock({ key }: S3Call, url: URL, body: Buffer): Answer {
    const found = versions.find(key, url.searchParams.get("versionId") ?? undefined);
    if (found === undefined) return xmlError(404, "NoSuchKey");
    const text = body.toString();
    if (url.searchParams.has("legal-hold")) {
      found.legalHold = tagIn(text, "Status");
      return xml(200, "");
    }
    const wanted = {
      mode: tagIn(text, "Mode") ?? "",
      until: tagIn(text, "RetainUntilDate") ?? "",
    };
    const now = found.lock;
    const isWeaker =
      now !== undefined &&
      (Date.parse(wanted.until) < Date.parse(now.until) ||
        (now.mode === "COMPLIANCE" && wanted.mode !== "COMPLIANCE"));
    if (isWeaker) return xmlError(403, "AccessDenied");
    found.lock = wanted;
    return xml(200, "");
  }

  function describeBucket(url: URL): Answer {
    const name = bucketResources.find((one) => url.searchParams.has(one)) ?? "";
    const [root, missing] = bucketDocuments[name] ?? ["", ""];
    const text = settings.get(name);
    if (text === undefined && missing !== "") return xmlError(404, missing);
    return xml(200, `<${root}>${text ?? ""}</${root}>`);
  }

  const self: S3Server = {
    get endpoint() {
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    },
    calls,
    get objects() {
      const seen = new Map<string, StoredVersion>();
      for (const key of versions.keys()) {
        const found = versions.find(key, undefined);
        if (found !== undefined) seen.set(key, found);
      }
      return seen;
    },
    settings,
    clockOffsetMs: 0,
    hide: (key, bytes) => {
      if (bytes === undefined) versions.remove(key, undefined);
      else versions.put(key, { bytes: Buffer.from(bytes), metadata: {}, lock: undefined });
    },
    onCall: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return self;
}

/** Sub-resources of a bucket: the root of the answer, and what a bucket without it answers with 404. */
const bucketDocuments: Readonly<Record<string, readonly [root: string, missing: string]>> = {
  versioning: ["VersioningConfiguration", ""],
  "object-lock": ["ObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"],
  lifecycle: ["LifecycleConfiguration", "NoSuchLifecycleConfiguration"],
};
const bucketResources = Object.keys(bucketDocuments);

type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
};

function keptBytes(body: Buffer, fault: S3Fault | undefined): Buffer {
  if (fault?.kind === "frame")
    return Buffer.concat([Buffer.from("1000;chunk-signature=0\r\n"), body]);
  if (fault?.kind === "half") return body.subarray(0, body.length >>> 1);
  if (fault?.kind !== "flip") return body;
  const kept = Buffer.from(body);
  kept[0] = (kept[0] ?? 0) ^ 1;
  return kept;
}

function operationOf(request: IncomingMessage, url: URL): S3Call["operation"] {
  if (url.searchParams.has("retention") || url.searchParams.has("legal-hold")) return "lock";
  if (bucketResources.some((name) => url.searchParams.has(name))) return "bucket";
  if (url.searchParams.has("versions")) return "versions";
  if (request.method === "PUT") return "put";
  if (request.method === "DELETE") return "remove";
  if (request.method === "HEAD") return "head";
  if (request.method === "POST" && url.searchParams.has("delete")) return "remove";
  return url.searchParams.has("list-type") ? "list" : "get";
}

function send(response: ServerResponse, call: S3Call, answer: Answer): void {
  response.writeHead(answer.status, { ...answer.headers, "content-length": answer.body.length });
  response.end(call.operation === "head" ? undefined : answer.body);
}

function xmlError(status: number, code: string): Answer {
  return xml(status, `<Error><Code>${code}</Code><Message>${code} by the test</Message></Error>`);
}

function xml(status: number, text: string): Answer {
  const body = Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>${text}`);
  return { status, headers: { "content-type": "application/xml" }, body };
}

function lockHeaders({ lock, legalHold }: StoredVersion): Record<string, string> {
  return {
    ...(lock && {
      "x-amz-object-lock-mode": lock.mode,
      "x-amz-object-lock-retain-until-date": lock.until,
    }),
    ...(legalHold && { "x-amz-object-lock-legal-hold": legalHold }),
  };
}

function tagIn(text: string, name: string): string | undefined {
  return new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1];
}

function md5Of(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("hex");
}
