import { createHash } from "node:crypto";
import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import { type Clock, systemClock } from "@holdfast/shared/ports/clock";

/** One client serves all transfers of a process; more sockets than requests in flight, so that none waits for another. */
const socketsMax = 256;
const connectTimeoutMs = 10_000;
/** No byte in either direction for this long ends the request: a stalled store is noticed, a slow one is not. */
const idleTimeoutMs = 60_000;
/** From the first byte sent to the answer's headers. 64 MiB in this time is 110 kB/s. */
const requestTimeoutMs = 600_000;
const attemptsMax = 3;

export type S3ClientOptions = {
  readonly idleTimeoutMs?: number;
  readonly attemptsMax?: number;
  readonly endpoint?: string;
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
  readonly clock?: Clock;
};

/**
 * A client that works with AWS and with S3-compatible stores. Credentials, region and endpoint come from the SDK's
 * environment (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL_S3`, …) unless given.
 * Checksums of the AWS kind are off, as many stores refuse or ignore them; Content-MD5 goes with every body instead.
 */
export function createS3Client(options: S3ClientOptions = {}): S3Client {
  const environment = process.env;
  const endpoint =
    options.endpoint ?? environment["AWS_ENDPOINT_URL_S3"] ?? environment["AWS_ENDPOINT_URL"];
  const agent = { keepAlive: true, maxSockets: socketsMax };
  const config: S3ClientConfig = {
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    maxAttempts: options.attemptsMax ?? attemptsMax,
    retryMode: "standard",
    requestHandler: {
      connectionTimeout: connectTimeoutMs,
      socketTimeout: options.idleTimeoutMs ?? idleTimeoutMs,
      requestTimeout: requestTimeoutMs,
      throwOnRequestTimeout: true,
      socketAcquisitionWarningTimeout: requestTimeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  };
  if (endpoint !== undefined && endpoint !== "") {
    config.endpoint = endpoint;
    // Names of buckets are rarely in the DNS of a private store.
    config.forcePathStyle = true;
    config.region = environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? "us-east-1";
  } else {
    config.followRegionRedirects = true;
    const region = environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"];
    if (region !== undefined) config.region = region;
  }
  if (options.credentials !== undefined) config.credentials = options.credentials;
  const client = new S3Client(config);
  addMd5ToBatchDelete(client);
  watchClock(client, options.clock ?? systemClock);
  return client;
}

const skews = new WeakMap<S3Client, readonly number[]>();
/** A single odd answer, of a cache or a gateway, says nothing about the clocks. */
const skewsKept = 3;

/** By how much the store's clock is ahead of ours, in milliseconds to a second, as its last answers agree; undefined before the first. */
export function clockSkewMs(client: S3Client): number | undefined {
  const [...known] = skews.get(client) ?? [];
  return known.sort((left, right) => Math.abs(left) - Math.abs(right))[0];
}

function watchClock(client: S3Client, clock: Clock): void {
  client.middlewareStack.add(
    (next) => async (call) => {
      const answer = await next(call);
      const storeMs = dateOf(answer.response);
      if (storeMs !== undefined) {
        const known = skews.get(client) ?? [];
        skews.set(client, [...known, storeMs - clock.now()].slice(-skewsKept));
      }
      return answer;
    },
    // Next to the wire: an answer that says no has a date, too.
    { step: "deserialize", name: "holdfastClock", priority: "low" },
  );
}

function dateOf(response: unknown): number | undefined {
  const headers = field(response, "headers");
  const date = field(headers, "date");
  if (typeof date !== "string" || field(headers, "age") !== undefined) return undefined;
  const ms = Date.parse(date);
  return Number.isNaN(ms) ? undefined : ms;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

/** DeleteObjects must carry a checksum, and what all stores know is Content-MD5. */
function addMd5ToBatchDelete(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => (call) => {
      const request: unknown = call.request;
      if (
        context["commandName"] === "DeleteObjectsCommand" &&
        typeof request === "object" &&
        request !== null &&
        "body" in request &&
        (typeof request.body === "string" || request.body instanceof Uint8Array) &&
        "headers" in request &&
        typeof request.headers === "object" &&
        request.headers !== null
      ) {
        Object.assign(request.headers, {
          "content-md5": createHash("md5").update(request.body).digest("base64"),
        });
      }
      return next(call);
    },
    { step: "build", name: "holdfastBatchDeleteMd5", priority: "low" },
  );
}
