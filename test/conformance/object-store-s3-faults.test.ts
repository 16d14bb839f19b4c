import type { Clock } from "@holdfast/shared/ports/clock";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import type { StorageReport } from "@holdfast/shared/storage/finding";
import { probeObjectStore } from "@holdfast/shared/storage/probe-object-store";
import { createS3Client } from "@holdfast/shared/storage/s3/s3-client";
import { createS3ObjectStore } from "@holdfast/shared/storage/s3/s3-object-store";
import { withRetries } from "@holdfast/shared/storage/with-retries";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type S3Call,
  type S3Fault,
  type S3Server,
  startS3Server,
} from "./object-store-s3-server.ts";

let server: S3Server;
let clients: ReturnType<typeof createS3Client>[];
beforeEach(async () => {
  server = await startS3Server();
  clients = [];
});
afterEach(async () => {
  for (const client of clients) client.destroy();
  await server[Symbol.asyncDispose]();
});

const bytes = Uint8Array.from({ length: 5000 }, (_, index) => index % 251);
const passing: readonly S3Fault[] = [
  { kind: "status", status: 503, code: "SlowDown" },
  { kind: "status", status: 500, code: "InternalError" },
  { kind: "reset" },
  { kind: "stall" },
];
const applied: readonly S3Fault[] = [
  { kind: "status", status: 500, code: "InternalError", applied: true },
  { kind: "status", status: 412, code: "PreconditionFailed", applied: true },
  { kind: "status", status: 409, code: "ConditionalRequestConflict", applied: true },
  { kind: "reset", applied: true },
  { kind: "stall", applied: true },
  { kind: "wrong-etag" },
];

describe("put", () => {
  for (const conditionalPut of [true, false]) {
    for (const fault of [...passing, ...applied]) {
      test(`survives ${nameOf(fault)} once, conditional put ${conditionalPut}`, async () => {
        faultOnce("put", fault);
        await open({ conditionalPut, attemptsMax: 1, ...limitFor(fault) }).put("key", bytes);
        expect(stored("key")).toEqual(Buffer.from(bytes));
      });
    }
  }

  test("the SDK's own repetition of a put that was applied is recognised", async () => {
    faultOnce("put", { kind: "reset", applied: true });
    await openBare({ conditionalPut: true, attemptsMax: 3 }).put("key", bytes);
    expect(server.calls.filter((call) => call.operation === "put")).toHaveLength(2);
    expect(stored("key")).toEqual(Buffer.from(bytes));
  });

  test("412 for another writer's object is object.exists, also with the same bytes", async () => {
    const store = openBare({ conditionalPut: true, attemptsMax: 3 });
    await openBare({ conditionalPut: true, attemptsMax: 3 }).put("key", bytes);
    faultOnce("put", { kind: "status", status: 500, code: "InternalError" });
    await expect(store.put("key", bytes)).rejects.toMatchObject({ code: "object.exists" });
  });

  test("success in the status with an error in the body is no success", async () => {
    faultAlways("put", { kind: "ok-with-error-body" });
    await expect(openBare({ conditionalPut: true }).put("key", bytes)).rejects.toMatchObject({
      code: "storage.unreachable",
    });
  });

  test("a body of which the store kept the first half is not stored", async () => {
    faultAlways("put", { kind: "half" });
    const store = openBare({ conditionalPut: true });
    await expect(store.put("key", bytes)).rejects.toMatchObject({ code: "storage.unreachable" });
  });

  test("a body that was changed by the store is corrupt", async () => {
    faultAlways("put", { kind: "flip" });
    const store = openBare({ conditionalPut: true });
    await expect(store.put("key", bytes)).rejects.toMatchObject({ code: "object.corrupt" });
  });

  test("a store that is away for good is unreachable, with the cause", async () => {
    faultAlways("put", { kind: "status", status: 503, code: "SlowDown" });
    const error = await open({ conditionalPut: true }).put("key", bytes).catch(asIs);
    expect(error).toMatchObject({ code: "storage.unreachable", details: { status: 503 } });
    expect(String(error)).toContain("s3://bucket/prefix/key");
  });
});

describe("what a store says is told apart", () => {
  for (const [status, code, expected] of [
    [403, "AccessDenied", "storage.refused"],
    [403, "InvalidAccessKeyId", "storage.refused"],
    [404, "NoSuchBucket", "storage.refused"],
    [403, "QuotaExceeded", "storage.no-space"],
    [507, "XMinioStorageFull", "storage.no-space"],
    [400, "ExpiredToken", "storage.refused"],
    [403, "ExpiredTokenException", "storage.refused"],
    [403, "SignatureDoesNotMatch", "storage.refused"],
    [403, "RequestTimeTooSkewed", "storage.refused"],
    [400, "BadDigest", "storage.unreachable"],
    [429, "TooManyRequests", "storage.unreachable"],
    [501, "NotImplemented", "storage.refused"],
  ] as const) {
    test(`${status} ${code} is ${expected}`, async () => {
      faultAlways("put", { kind: "status", status, code });
      const store = openBare({ conditionalPut: true, attemptsMax: 1 });
      await expect(store.put("key", bytes)).rejects.toMatchObject({ code: expected });
    });
  }

  test("a bucket that does not exist is not an object that does not exist", async () => {
    faultAlways("get", { kind: "status", status: 404, code: "NoSuchBucket" });
    await expect(openBare({}).get("key")).rejects.toMatchObject({ code: "storage.refused" });
  });

  test("nobody listening is unreachable", async () => {
    const store = openBare({ attemptsMax: 1 });
    await server[Symbol.asyncDispose]();
    await expect(store.head("key")).rejects.toMatchObject({ code: "storage.unreachable" });
    server = await startS3Server();
  });
});

describe("get", () => {
  for (const fault of [...passing, { kind: "truncate", bytes: 1234 } as const]) {
    test(`survives ${nameOf(fault)} once`, async () => {
      const store = open({ conditionalPut: true, attemptsMax: 1, ...limitFor(fault) });
      await store.put("key", bytes);
      faultOnce("get", fault);
      expect(await store.get("key")).toEqual(bytes);
      faultOnce("get", fault);
      expect(await store.getRange("key", { offset: 5, length: 2000 })).toEqual(
        bytes.subarray(5, 2005),
      );
    });
  }

  test("a cut body is never taken for the object", async () => {
    const store = openBare({ attemptsMax: 1 });
    await store.put("key", bytes);
    for (const length of [0, 1, 4999]) {
      faultAlways("get", { kind: "truncate", bytes: length });
      await expect(store.get("key")).rejects.toMatchObject({ code: "storage.unreachable" });
    }
  });

  test("a store that ignores ranges is not believed", async () => {
    const store = openBare({ attemptsMax: 1 });
    await store.put("key", bytes);
    faultAlways("get", { kind: "ignore-range" });
    await expect(store.getRange("key", { offset: 0, length: 10 })).rejects.toMatchObject({
      code: "storage.unreachable",
    });
  });
});

describe("answers of before", () => {
  test("an object that was just stored and is not found yet is asked for again", async () => {
    const store = open({ conditionalPut: true, attemptsMax: 1 });
    await store.put("key", bytes);
    faultOnce("get", { kind: "not-found" });
    expect(await store.get("key")).toEqual(bytes);
    faultOnce("get", { kind: "not-found" });
    const range = { offset: 5, length: 10 };
    expect(await store.getRange("key", range)).toEqual(bytes.subarray(5, 15));
    faultOnce("head", { kind: "not-found" });
    expect(await store.head("key")).toMatchObject({ sizeBytes: bytes.length });
  });

  test("what stays away, or was removed, or is of others is not there", async () => {
    const store = open({ conditionalPut: true, attemptsMax: 1 });
    await store.put("lost", bytes);
    faultAlways("get", { kind: "not-found" });
    await expect(store.get("lost")).rejects.toMatchObject({ code: "object.not-found" });
    server.onCall = () => undefined;
    await store.put("gone", bytes);
    await store.remove(["gone"]);
    const before = server.calls.length;
    expect(await store.head("gone")).toBeUndefined();
    expect(await store.head("never")).toBeUndefined();
    expect(server.calls.length - before).toBe(2);
  });
});

describe("clocks that disagree", () => {
  test.each([6, -6, 65, -65])(
    "by %i minutes: nothing is written or removed, reading goes on",
    async (minutes) => {
      const store = openBare({ conditionalPut: true, attemptsMax: 1 });
      await store.put("key", bytes);
      server.clockOffsetMs = minutes * 60_000;
      // A single odd answer decides nothing.
      await store.get("key");
      await store.put("other", bytes);
      for (let answers = 0; answers < 2; answers += 1)
        expect(await store.get("key")).toEqual(bytes);
      const wrong = {
        code: "clock.wrong",
        message: expect.stringContaining(`${Math.abs(minutes)} minutes`),
      };
      await expect(store.put("third", bytes)).rejects.toMatchObject(wrong);
      await expect(store.remove(["key"])).rejects.toMatchObject(wrong);
      expect(await store.get("key")).toEqual(bytes);
      server.clockOffsetMs = 0;
      await store.get("key");
      await store.remove(["key"]);
    },
  );
});

describe("list and remove", () => {
  test("a listing survives faults on any page, without loss or repetition", async () => {
    const store = open({ conditionalPut: true, attemptsMax: 1 });
    const keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (const key of keys) await store.put(key, bytes);
    let pages = 0;
    server.onCall = (call) => {
      if (call.operation !== "list") return undefined;
      pages += 1;
      return pages % 2 === 0 ? { kind: "reset" } : undefined;
    };
    const listed: string[] = [];
    for await (const { key } of open({ attemptsMax: 2 }).list("")) listed.push(key);
    expect(listed).toEqual(keys);
  });

  test("what one key's removal failed with is said, with the key", async () => {
    const store = openBare({ conditionalPut: true });
    await store.put("a", bytes);
    await store.put("b", bytes);
    faultAlways("remove", { kind: "removal-error", key: "prefix/b", code: "AccessDenied" });
    const error = await store.remove(["a", "b"]).catch(asIs);
    expect(error).toMatchObject({ code: "storage.refused", details: { keys: ["b"] } });
    expect(server.objects.has("prefix/a")).toBe(false);
  });

  test("a removal that failed for a while for one key, in an answer that says success, is repeated", async () => {
    const store = open({ conditionalPut: true, attemptsMax: 1 });
    for (const key of ["a", "b"]) await store.put(key, bytes);
    faultOnce("remove", { kind: "removal-error", key: "prefix/b", code: "InternalError" });
    await store.remove(["a", "b"]);
    expect(server.objects.size).toBe(0);
  });

  test("where batches are unknown, each key is removed by itself", async () => {
    const store = openBare({ conditionalPut: true, attemptsMax: 1 });
    for (const key of ["a", "b"]) await store.put(key, bytes);
    server.onCall = ({ operation, key }) =>
      operation === "remove" && key === ""
        ? { kind: "status", status: 501, code: "NotImplemented" }
        : undefined;
    await store.remove(["a", "b", "never"]);
    expect(server.objects.size).toBe(0);
  });

  test("a removal carries Content-MD5", async () => {
    await openBare({}).remove(["a"]);
    const call = server.calls.find(({ operation }) => operation === "remove");
    expect(call?.headers["content-md5"]).toMatch(/^[A-Za-z0-9+/]{22}==$/);
  });
});

describe("the probe", () => {
  const probe = (): Promise<StorageReport> =>
    probeObjectStore(openBare({}), {
      random: systemRandom,
      openUnguarded: () => openBare({ conditionalPut: true }),
    });

  test("finds conditional puts where they work, and leaves nothing", async () => {
    expect((await probe()).supports).toMatchObject({ conditionalPut: true });
    expect(server.objects.size).toBe(0);
  });

  test("works where a bucket's policy demands the condition", async () => {
    server.onCall = ({ operation, headers }) =>
      operation === "put" && headers["if-none-match"] === undefined
        ? { kind: "status", status: 403, code: "AccessDenied" }
        : undefined;
    expect((await probe()).supports).toMatchObject({ conditionalPut: true });
  });

  test("finds that they are ignored", async () => {
    faultAlways("put", { kind: "ignore-condition" });
    expect((await probe()).supports).toMatchObject({ conditionalPut: false });
    expect(server.objects.size).toBe(0);
  });

  test("finds that they are refused", async () => {
    server.onCall = ({ operation, headers }) =>
      operation === "put" && headers["if-none-match"] !== undefined
        ? { kind: "status", status: 501, code: "NotImplemented" }
        : undefined;
    expect((await probe()).supports).toMatchObject({ conditionalPut: false });
    await openBare({ conditionalPut: false }).put("key", bytes);
    await openBare({}).put("other", bytes);
    await expect(openBare({}).put("other", bytes)).rejects.toMatchObject({ code: "object.exists" });
  });

  test("refuses a store that keeps transfer framing in the body", async () => {
    faultAlways("put", { kind: "frame" });
    await expect(probe()).rejects.toMatchObject({ code: "storage.refused" });
    expect(server.objects.size).toBe(0);
  });
});

type Opening = {
  readonly conditionalPut?: boolean;
  readonly attemptsMax?: number;
  readonly idleTimeoutMs?: number;
};

/** The driver alone. `attemptsMax` is the SDK's. */
function openBare({
  conditionalPut,
  attemptsMax = 2,
  idleTimeoutMs = 20_000,
}: Opening): ObjectStore {
  const client = createS3Client({
    endpoint: server.endpoint,
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    idleTimeoutMs,
    attemptsMax,
  });
  clients.push(client);
  const supports = conditionalPut === undefined ? {} : { supports: { conditionalPut } };
  return createS3ObjectStore({ bucket: "bucket", prefix: "prefix", client, ...supports });
}

function open(opening: Opening): ObjectStore {
  return withRetries(openBare(opening), { attemptsMax: 3 }, clockAtOnce, systemRandom);
}

/** Only a stall is waited for; elsewhere a busy machine must not look like one. */
function limitFor(fault: S3Fault): Opening {
  return fault.kind === "stall" ? { idleTimeoutMs: 1000 } : {};
}

function faultAlways(operation: S3Call["operation"], fault: S3Fault): void {
  server.onCall = (call) => (call.operation === operation ? fault : undefined);
}

function faultOnce(operation: S3Call["operation"], fault: S3Fault): void {
  let done = false;
  server.onCall = (call) => {
    if (done || call.operation !== operation) return undefined;
    done = true;
    return fault;
  };
}

function stored(key: string): Buffer | undefined {
  return server.objects.get(`prefix/${key}`)?.bytes;
}

function nameOf(fault: S3Fault): string {
  const { kind, ...details } = fault;
  return [kind, ...Object.values(details)].join(" ");
}

function asIs(error: unknown): unknown {
  return error;
}

const clockAtOnce: Clock = {
  now: () => 0,
  sleep: async (_delayMs, signal) => signal?.throwIfAborted(),
};
