import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * What goes wrong with one request. `applied` faults happen after the store did what it was asked.
 * `ignore-condition` stores over what is there; `frame` keeps transfer framing in the stored body; `flip` stores one
 * bit wrong and answers with the ETag of what it stored.
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
  | { readonly kind: "removal-error"; readonly key: string; readonly code: string };

export type S3Call = {
  readonly operation: "put" | "get" | "head" | "list" | "remove";
  readonly key: string;
  readonly headers: IncomingMessage["headers"];
};

/** An S3 endpoint in memory with one bucket per name, whose every request can be made to fail. Speaks what the driver uses. */
export type S3Server = AsyncDisposable & {
  readonly endpoint: string;
  readonly calls: readonly S3Call[];
  readonly objects: ReadonlyMap<string, StoredObject>;
  /** Asked for each request; undefined lets it pass. */
  onCall: (call: S3Call) => S3Fault | undefined;
};
type StoredObject = {
  readonly bytes: Buffer;
  readonly metadata: Readonly<Record<string, string>>;
};

/** Entries of one page of a listing: small, so that paging is always exercised. */
const pageEntriesMax = 3;

export async function startS3Server(): Promise<S3Server> {
  const objects = new Map<string, StoredObject>();
  const calls: S3Call[] = [];
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
    const fault = self.onCall(call);
    const applies = fault === undefined || !("applied" in fault) || fault.applied === true;
    if (fault?.kind === "status" || fault?.kind === "reset" || fault?.kind === "stall") {
      if (applies && fault.applied === true) apply(call, { url, body, fault: undefined });
      if (fault.kind === "reset") return void request.socket.destroy();
      if (fault.kind === "stall") return;
      return send(response, call, xmlError(fault.status, fault.code));
    }
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
        return get(call, fault);
      case "list":
        return list(url);
      case "remove":
        return remove(body, fault);
      default:
        return call.operation satisfies never;
    }
  }

  function put({ key, headers }: S3Call, body: Buffer, fault: S3Fault | undefined): Answer {
    if (fault?.kind === "ok-with-error-body")
      return { ...xmlError(200, "InternalError"), status: 200 };
    if (headers["content-md5"] !== createHash("md5").update(body).digest("base64"))
      return xmlError(400, "BadDigest");
    if (
      headers["if-none-match"] === "*" &&
      objects.has(key) &&
      fault?.kind !== "ignore-condition"
    ) {
      return xmlError(412, "PreconditionFailed");
    }
    const metadata: Record<string, string> = {};
    for (const [name, value] of Object.entries(headers)) {
      if (name.startsWith("x-amz-meta-")) metadata[name] = String(value);
    }
    const kept = keptBytes(body, fault);
    objects.set(key, { bytes: kept, metadata });
    const digest = createHash("md5")
      .update(fault?.kind === "flip" ? kept : body)
      .digest("hex");
    const etag = fault?.kind === "wrong-etag" ? "none-of-yours" : digest;
    return { status: 200, headers: { etag: `"${etag}"` }, body: Buffer.alloc(0) };
  }

  function get({ key, headers }: S3Call, fault: S3Fault | undefined): Answer {
    const found = objects.get(key);
    if (found === undefined) return xmlError(404, "NoSuchKey");
    const { bytes, metadata } = found;
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
    if (range === null || fault?.kind === "ignore-range") {
      return { status: 200, headers: metadata, body: bytes };
    }
    const [first, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
    if (first >= bytes.length) return xmlError(416, "InvalidRange");
    const contentRange = `bytes ${first}-${last}/${bytes.length}`;
    return {
      status: 206,
      headers: { ...metadata, "content-range": contentRange },
      body: bytes.subarray(first, last + 1),
    };
  }

  function list(url: URL): Answer {
    const after = url.searchParams.get("continuation-token") ?? "";
    const prefix = url.searchParams.get("prefix") ?? "";
    const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, pageEntriesMax);
    const entries = page.map(
      (key) =>
        `<Contents><Key>${key}</Key><Size>${objects.get(key)?.bytes.length}</Size></Contents>`,
    );
    const more = keys.length > page.length;
    const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    return xml(
      200,
      `<ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`,
    );
  }

  function remove(body: Buffer, fault: S3Fault | undefined): Answer {
    const errors: string[] = [];
    for (const [, key = ""] of body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)) {
      if (fault?.kind === "removal-error" && fault.key === key) {
        errors.push(`<Error><Key>${key}</Key><Code>${fault.code}</Code></Error>`);
      } else {
        objects.delete(key);
      }
    }
    return xml(200, `<DeleteResult>${errors.join("")}</DeleteResult>`);
  }

  const self: S3Server = {
    get endpoint() {
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    },
    calls,
    objects,
    onCall: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return self;
}

type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
};

function keptBytes(body: Buffer, fault: S3Fault | undefined): Buffer {
  if (fault?.kind === "frame")
    return Buffer.concat([Buffer.from("1000;chunk-signature=0\r\n"), body]);
  if (fault?.kind !== "flip") return body;
  const kept = Buffer.from(body);
  kept[0] = (kept[0] ?? 0) ^ 1;
  return kept;
}

function operationOf(request: IncomingMessage, url: URL): S3Call["operation"] {
  if (request.method === "PUT") return "put";
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
